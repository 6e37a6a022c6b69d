/* A stand-in for libcuda.so.1, for machines without a GPU. Ours: no NVIDIA code, see node.h.
 *
 * Two halves. A tenant may allocate, fill and read "device memory", which lies in files of the
 * pretended node (node.h), outside the process, beside a device file that CRIU cannot dump. Another
 * process may lock, checkpoint, restore and unlock it, with the states, errors and waits of the real
 * driver: while checkpointed, the bytes are in private memory of the tenant, and no file is open.
 *
 * The two meet in the tenant's memory: at cuInit it starts a thread that watches a mailbox, and the
 * caller finds that mailbox at the same place of the same library in /proc/PID/maps, writes a request
 * and waits for the answer. So it needs no path, no port and no name; it works across containers, and
 * after CRIU brought the process back as another pid.
 *
 * Left out: kernels, streams, contexts other than the primary, peer access, and custom storage.
 */
#include "node.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <time.h>

typedef int CUresult;
typedef unsigned long long CUdeviceptr;
enum {
  OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3, NO_DEVICE = 100,
  INVALID_DEVICE = 101, INVALID_CONTEXT = 201, OPERATING_SYSTEM = 304, ILLEGAL_STATE = 401,
  NOT_FOUND = 500, NOT_READY = 600, UNKNOWN = 999
};
enum { RUNNING, LOCKED, CHECKPOINTED, FAILED };
enum { LOCK = 1, CHECKPOINT, RESTORE, UNLOCK };
#define MAGIC 0x73746e642d637564ULL
#define MAX_ALLOCATIONS 4096
#define FIRST_POINTER 0x700000000000ULL
#define POLL_NS 2000000
#define CHUNK (8 << 20)

struct pair { unsigned char old[16], new[16]; };

static struct mailbox {
  volatile uint64_t magic, request, answer;
  volatile uint32_t state, thread, operation, timeout_ms, pid, pair_count, result;
  struct pair pairs[MAX_GPUS];
} mailbox;

static struct context { /* One per visible device; CUcontext points to it. */
  struct gpu gpu;
  int references, fd, device_fd;
  char path[512];
  uint64_t used, end;
} contexts[MAX_GPUS];
static int context_count;

static struct node seen; /* The node as the process was checkpointed on it. */

static struct allocation {
  CUdeviceptr pointer;
  uint64_t bytes, offset;
  struct context *context;
  char *host; /* Where its bytes are while checkpointed. */
} allocations[MAX_ALLOCATIONS];
static CUdeviceptr next_pointer = FIRST_POINTER;

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed;
static int initialized, locking, in_flight;
static __thread struct context *current;

/* -- going wrong on purpose -- */
static void rest(long ns) {
  struct timespec time = {ns / 1000000000, ns % 1000000000};
  nanosleep(&time, NULL);
}

static CUresult injected(const char *operation, uint32_t pid) {
  char name[64], path[600];
  long delay_ms = 0, waited_ms = 0;
  int error = 0;
  for (;;) {
    snprintf(name, sizeof name, "%s.%u", operation, pid);
    node_path(path, 512, "inject", name);
    FILE *file = fopen(path, "re");
    if (!file) {
      node_path(path, 512, "inject", operation);
      file = fopen(path, "re");
    }
    if (!file) return OK;
    int fields = fscanf(file, "%ld %d", &delay_ms, &error);
    fclose(file);
    if (fields != 2) return OK;
    if (waited_ms >= delay_ms) return error;
    if (waited_ms == 0) {
      strcat(path, ".begun");
      int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
      if (fd >= 0) close(fd);
    }
    rest(2000000);
    waited_ms += 2;
  }
}

/* -- a tenant's calls: none begins while it is locked -- */
static CUresult enter(void) {
  pthread_mutex_lock(&gate);
  if (!initialized) {
    pthread_mutex_unlock(&gate);
    return NOT_INITIALIZED;
  }
  while (locking || mailbox.state != RUNNING) pthread_cond_wait(&changed, &gate);
  in_flight++;
  pthread_mutex_unlock(&gate);
  return OK;
}

static CUresult leave(CUresult result) {
  pthread_mutex_lock(&gate);
  in_flight--;
  pthread_cond_broadcast(&changed);
  pthread_mutex_unlock(&gate);
  return result;
}
#define ENTER()              \
  do {                       \
    CUresult r_ = enter();   \
    if (r_ != OK) return r_; \
  } while (0)

/* -- device memory -- */
static int device_open(struct node *node, const char *uuid) {
  char name[32], path[512];
  const char *folder = getenv("STANDIN_DEV");
  int index = -1;
  for (int row = 0; row < node->count; row++) {
    index += node->gpus[row].parent < 0;
    if (!strcmp(node->gpus[row].uuid, uuid)) break;
  }
  snprintf(name, sizeof name, "nvidia%d", index);
  node_path(path, sizeof path, "dev", name);
  if (folder) snprintf(path, sizeof path, "%s/%s", folder, name);
  int fd = open(path, O_RDWR | O_CLOEXEC);
  if (folder) {
    if (fd < 0) fprintf(stderr, "stand-in libcuda: %s: %s\n", path, strerror(errno));
    return fd;
  }
  if (fd < 0) fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
  if (fd < 0) { /* A container without that device: a ruleset of Landlock cannot be dumped, either. */
    uint64_t handled = 1;
    fd = (int)syscall(444, &handled, sizeof handled, 0);
  }
  if (fd < 0) fprintf(stderr, "stand-in libcuda: no device file to hold, tried %s\n", path);
  return fd;
}

static int store_used(struct context *context) {
  return pwrite(context->fd, &context->used, sizeof context->used, 0) == sizeof context->used;
}

/* Take `bytes` more of a GPU for a context, if they are free. */
static CUresult charge(struct context *context, uint64_t bytes) {
  CUresult result = OUT_OF_MEMORY;
  int lock = gpu_lock(context->gpu.uuid);
  if (lock < 0) return OPERATING_SYSTEM;
  if (gpu_used(context->gpu.uuid, NULL, NULL) + bytes <= context->gpu.memory) {
    context->used += bytes;
    result = store_used(context) ? OK : OPERATING_SYSTEM;
  }
  close(lock);
  return result;
}

static void context_close(struct context *context) {
  if (context->fd < 0) return;
  unlink(context->path);
  close(context->fd);
  close(context->device_fd);
  context->fd = -1;
  context->used = 0;
}

static CUresult context_open(struct context *context, uint64_t bytes) {
  unsigned long long token;
  char name[200];
  struct node node;
  if (!node_read(&node)) return OPERATING_SYSTEM;
  if (getrandom(&token, sizeof token, 0) != sizeof token) return OPERATING_SYSTEM;
  snprintf(name, sizeof name, "%s/%016llx", context->gpu.uuid, token);
  node_path(context->path, sizeof context->path, "memory", name);
  context->used = 0;
  context->device_fd = device_open(&node, context->gpu.uuid);
  if (context->device_fd < 0) return OPERATING_SYSTEM;
  int lock = gpu_lock(context->gpu.uuid);
  context->fd = lock < 0 ? -1 : open(context->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (context->fd >= 0) flock(context->fd, LOCK_EX);
  if (context->fd < 0 || !store_used(context)) {
    int reason = errno;
    fprintf(stderr, "stand-in libcuda: %s: %s\n", context->path, strerror(reason));
    close(lock);
    close(context->device_fd);
    return OPERATING_SYSTEM;
  }
  close(lock);
  CUresult result = charge(context, node.context + bytes);
  if (result != OK) context_close(context);
  return result;
}

static CUresult copy(struct context *context, uint64_t offset, char *host, uint64_t bytes, int to_device) {
  while (bytes) {
    size_t part = bytes < CHUNK ? bytes : CHUNK;
    ssize_t done = to_device ? pwrite(context->fd, host, part, (off_t)offset)
                             : pread(context->fd, host, part, (off_t)offset);
    if (done < 0) return OPERATING_SYSTEM;
    if (done == 0) { /* Beyond what was ever written. */
      memset(host, 0, part);
      done = (ssize_t)part;
    }
    host += done;
    offset += (uint64_t)done;
    bytes -= (uint64_t)done;
  }
  return OK;
}

static struct allocation *find(CUdeviceptr pointer, uint64_t bytes) {
  for (int i = 0; i < MAX_ALLOCATIONS; i++) {
    struct allocation *a = &allocations[i];
    if (a->bytes && pointer >= a->pointer && pointer + bytes <= a->pointer + a->bytes) return a;
  }
  return NULL;
}

/* -- the tenant's side of a checkpoint: on the mailbox's thread, with the gate held -- */
static CUresult do_lock(uint32_t timeout_ms) {
  struct timespec deadline;
  clock_gettime(CLOCK_MONOTONIC, &deadline);
  deadline.tv_sec += timeout_ms / 1000;
  deadline.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
  if (deadline.tv_nsec >= 1000000000) {
    deadline.tv_sec++;
    deadline.tv_nsec -= 1000000000;
  }
  locking = 1;
  int late = 0;
  while (in_flight && !late) {
    late = timeout_ms ? pthread_cond_timedwait(&changed, &gate, &deadline) == ETIMEDOUT
                      : (pthread_cond_wait(&changed, &gate), 0);
  }
  locking = 0;
  pthread_cond_broadcast(&changed);
  if (in_flight) return NOT_READY;
  mailbox.state = LOCKED;
  return OK;
}

static void drop_host_copies(void) {
  for (int i = 0; i < MAX_ALLOCATIONS; i++) {
    if (allocations[i].host) munmap(allocations[i].host, allocations[i].bytes);
    allocations[i].host = NULL;
  }
}

static CUresult do_checkpoint(void) {
  if (!node_read(&seen)) return OPERATING_SYSTEM;
  for (int i = 0; i < context_count; i++) {
    if (contexts[i].fd >= 0 && contexts[i].gpu.parent >= 0) return OUT_OF_MEMORY; /* MIG */
  }
  for (int i = 0; i < MAX_ALLOCATIONS; i++) {
    struct allocation *a = &allocations[i];
    if (!a->bytes) continue;
    void *host = mmap(NULL, a->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CUresult result = host == MAP_FAILED ? OUT_OF_MEMORY : OK;
    if (result == OK) {
      a->host = host;
      result = copy(a->context, a->offset, a->host, a->bytes, 0);
    }
    if (result != OK) {
      drop_host_copies();
      return result;
    }
  }
  for (int i = 0; i < context_count; i++) context_close(&contexts[i]);
  mailbox.state = CHECKPOINTED;
  return OK;
}

static int same_uuid(const char *text, const unsigned char *bytes) {
  const char *at = strchr(text, '-');
  for (int i = 0; at && i < 16; i++) {
    unsigned int byte;
    at += strspn(at, "-");
    if (sscanf(at, "%2x", &byte) != 1 || byte != bytes[i]) return 0;
    at += 2;
  }
  return at != NULL;
}

static struct gpu *by_uuid(struct node *node, const unsigned char *bytes) {
  for (int row = 0; row < node->count; row++) {
    if (node->gpus[row].parent < 0 && same_uuid(node->gpus[row].uuid, bytes)) return &node->gpus[row];
  }
  return NULL;
}

/* Pairs name each GPU that the driver showed at the checkpoint once as old, whatever the process saw
 * of them, and as many of this node as new, of the same chips. */
static int pairs_hold(struct node *node) {
  uint32_t whole = 0;
  uint64_t olds = 0, news = 0;
  for (int row = 0; row < seen.count; row++) whole += seen.gpus[row].parent < 0;
  if (mailbox.pair_count != whole) return 0;
  for (uint32_t i = 0; i < whole; i++) {
    struct gpu *from = by_uuid(&seen, mailbox.pairs[i].old), *to = by_uuid(node, mailbox.pairs[i].new);
    if (!from || !to || strcmp(from->name, to->name)) return 0;
    olds |= 1ULL << (from - seen.gpus);
    news |= 1ULL << (to - node->gpus);
  }
  return __builtin_popcountll(olds) == (int)whole && __builtin_popcountll(news) == (int)whole;
}

static CUresult do_restore(void) {
  struct node node;
  if (!node_read(&node)) return OPERATING_SYSTEM;
  if (mailbox.pair_count) {
    if (!pairs_hold(&node)) return INVALID_VALUE;
    for (int i = 0; i < context_count; i++) {
      for (uint32_t p = 0; p < mailbox.pair_count; p++) {
        if (!same_uuid(contexts[i].gpu.uuid, mailbox.pairs[p].old)) continue;
        contexts[i].gpu = *by_uuid(&node, mailbox.pairs[p].new);
        break;
      }
    }
  }
  for (int i = 0; i < context_count; i++) { /* Without pairs: where it was, if that is here. */
    int here = 0;
    for (int row = 0; row < node.count; row++) here |= !strcmp(node.gpus[row].uuid, contexts[i].gpu.uuid);
    if (contexts[i].references && !here) return INVALID_VALUE;
  }
  CUresult result = OK;
  for (int i = 0; i < context_count && result == OK; i++) {
    uint64_t bytes = 0;
    if (!contexts[i].references) continue;
    for (int a = 0; a < MAX_ALLOCATIONS; a++) {
      if (allocations[a].context == &contexts[i]) bytes += allocations[a].bytes;
    }
    result = context_open(&contexts[i], bytes);
  }
  for (int i = 0; i < MAX_ALLOCATIONS && result == OK; i++) {
    struct allocation *a = &allocations[i];
    if (a->bytes) result = copy(a->context, a->offset, a->host, a->bytes, 1);
  }
  if (result != OK) {
    for (int i = 0; i < context_count; i++) context_close(&contexts[i]);
    mailbox.state = FAILED; /* What there is no way back from but the end of the process. */
    return result;
  }
  drop_host_copies();
  mailbox.state = LOCKED;
  return OK;
}

static CUresult operate(uint32_t operation) {
  static const char *const names[] = {"", "lock", "checkpoint", "restore", "unlock"};
  static const uint32_t from[] = {0, RUNNING, LOCKED, CHECKPOINTED, LOCKED};
  if (operation < LOCK || operation > UNLOCK) return INVALID_VALUE;
  if (mailbox.state != from[operation]) return ILLEGAL_STATE;
  CUresult result = injected(names[operation], mailbox.pid);
  if (result != OK) {
    if (operation == CHECKPOINT || operation == RESTORE) mailbox.state = FAILED;
    return result;
  }
  pthread_mutex_lock(&gate);
  switch (operation) {
    case LOCK: result = do_lock(mailbox.timeout_ms); break;
    case CHECKPOINT:
      result = do_checkpoint();
      if (result != OK) mailbox.state = FAILED;
      break;
    case RESTORE: result = do_restore(); break;
    default: mailbox.state = RUNNING; break;
  }
  pthread_cond_broadcast(&changed);
  pthread_mutex_unlock(&gate);
  return result;
}

static void *watch(void *unused) {
  (void)unused;
  mailbox.thread = (uint32_t)syscall(SYS_gettid);
  __sync_synchronize();
  mailbox.magic = MAGIC;
  for (;;) {
    if (mailbox.request != mailbox.answer) {
      __sync_synchronize();
      mailbox.result = (uint32_t)operate(mailbox.operation);
      __sync_synchronize();
      mailbox.answer = mailbox.request;
    }
    rest(POLL_NS);
  }
  return NULL;
}

/* -- the caller's side -- */
static uintptr_t mailbox_of(int pid) {
  char path[64], line[1024];
  uintptr_t base = 0;
  Dl_info own;
  if (pid <= 0 || pid == getpid() || !dladdr(&mailbox, &own)) return 0;
  snprintf(path, sizeof path, "/proc/%d/maps", pid);
  FILE *maps = fopen(path, "re");
  if (!maps) return 0;
  while (!base && fgets(line, sizeof line, maps)) {
    unsigned long start, offset;
    char file[512];
    if (sscanf(line, "%lx-%*x %*s %lx %*s %*s %511s", &start, &offset, file) != 3 || offset) continue;
    size_t length = strlen(file);
    if (length > 13 && !strcmp(file + length - 13, "/libcuda.so.1")) base = start;
  }
  fclose(maps);
  return base ? base + ((uintptr_t)&mailbox - (uintptr_t)own.dli_fbase) : 0;
}

static int peek(int pid, uintptr_t at, void *into, size_t bytes) {
  struct iovec here = {into, bytes}, there = {(void *)at, bytes};
  return process_vm_readv(pid, &here, 1, &there, 1, 0) == (ssize_t)bytes;
}

static int poke(int pid, uintptr_t at, const void *from, size_t bytes) {
  struct iovec here = {(void *)from, bytes}, there = {(void *)at, bytes};
  return process_vm_writev(pid, &here, 1, &there, 1, 0) == (ssize_t)bytes;
}

/* Wait until a tenant has answered what it was asked, by whomever. */
static CUresult answered(int pid, uintptr_t at, struct mailbox *box) {
  for (;;) {
    if (!peek(pid, at, box, sizeof *box) || box->magic != MAGIC) return INVALID_VALUE;
    if (box->request == box->answer) return OK;
    rest(POLL_NS / 4);
  }
}

static CUresult ask(int pid, uint32_t operation, uint32_t timeout_ms, struct pair *pairs, uint32_t count) {
  char name[32], path[512];
  struct mailbox box;
  uintptr_t at = mailbox_of(pid);
  if (!initialized) return NOT_INITIALIZED;
  if (!at || count > MAX_GPUS) return INVALID_VALUE;
  snprintf(name, sizeof name, "%d", pid);
  node_path(path, sizeof path, "calls", name);
  int turn = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (turn < 0 || flock(turn, LOCK_EX)) return OPERATING_SYSTEM;
  CUresult result = answered(pid, at, &box);
  if (result == OK) {
    uint64_t request = box.request + 1;
    box.operation = operation;
    box.timeout_ms = timeout_ms;
    box.pid = (uint32_t)pid;
    box.pair_count = count;
    if (count) memcpy(box.pairs, pairs, count * sizeof *pairs);
    size_t from = offsetof(struct mailbox, operation);
    if (poke(pid, at + from, (char *)&box + from, offsetof(struct mailbox, result) - from) &&
        poke(pid, at + offsetof(struct mailbox, pairs), box.pairs, sizeof box.pairs) &&
        poke(pid, at + offsetof(struct mailbox, request), &request, sizeof request)) {
      result = answered(pid, at, &box);
      if (result == OK) result = (CUresult)box.result;
    } else {
      result = OPERATING_SYSTEM;
    }
  }
  close(turn);
  return result;
}

struct lock_args { unsigned int timeout_ms; };
struct restore_args { struct pair *pairs; unsigned int count; };

CUresult cuCheckpointProcessGetState(int pid, int *state) {
  struct mailbox box;
  uintptr_t at = mailbox_of(pid);
  if (!initialized) return NOT_INITIALIZED;
  if (!at || !state) return INVALID_VALUE;
  CUresult result = answered(pid, at, &box);
  if (result == OK) *state = (int)box.state;
  return result;
}

CUresult cuCheckpointProcessGetRestoreThreadId(int pid, int *thread) {
  struct mailbox box;
  uintptr_t at = mailbox_of(pid);
  if (!at || !thread || !peek(pid, at, &box, sizeof box) || box.magic != MAGIC) return INVALID_VALUE;
  *thread = (int)box.thread;
  return OK;
}

CUresult cuCheckpointProcessLock(int pid, struct lock_args *args) {
  return ask(pid, LOCK, args ? args->timeout_ms : 0, NULL, 0);
}

CUresult cuCheckpointProcessCheckpoint(int pid, void *args) {
  (void)args;
  return ask(pid, CHECKPOINT, 0, NULL, 0);
}

CUresult cuCheckpointProcessRestore(int pid, struct restore_args *args) {
  return ask(pid, RESTORE, 0, args ? args->pairs : NULL, args ? args->count : 0);
}

CUresult cuCheckpointProcessUnlock(int pid, void *args) {
  (void)args;
  return ask(pid, UNLOCK, 0, NULL, 0);
}

/* -- start, devices, contexts -- */
static void after_fork(void) { mailbox.magic = 0; } /* A child has no thread that would answer. */

/* CUDA_VISIBLE_DEVICES: rows or UUIDs; the first that is unknown ends the list. */
static void see(struct node *node) {
  const char *visible = getenv("CUDA_VISIBLE_DEVICES");
  char list[4096], *rest_of = NULL;
  struct gpu *usable[MAX_GPUS];
  int count = 0;
  for (int row = 0; row < node->count; row++) {
    if (node->gpus[row].mig_mode <= 0) usable[count++] = &node->gpus[row];
  }
  if (!visible) {
    for (int i = 0; i < count; i++) contexts[context_count++] = (struct context){.gpu = *usable[i], .fd = -1};
    return;
  }
  snprintf(list, sizeof list, "%s", visible);
  for (char *word = strtok_r(list, ",", &rest_of); word; word = strtok_r(NULL, ",", &rest_of)) {
    struct gpu *found = NULL;
    char *end;
    long row = strtol(word, &end, 10);
    for (int i = 0; i < count && !found; i++) {
      if (*end ? !strncmp(usable[i]->uuid, word, strlen(word)) : i == row) found = usable[i];
    }
    if (!found || context_count == MAX_GPUS) return;
    contexts[context_count++] = (struct context){.gpu = *found, .fd = -1};
  }
}

CUresult cuInit(unsigned int flags) {
  static struct node node;
  pthread_t thread;
  (void)flags;
  pthread_mutex_lock(&gate);
  CUresult result = OK;
  if (!initialized) {
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&changed, &attributes);
    result = injected("init", (uint32_t)getpid());
    if (result == OK && (!node_read(&node) || !node.count)) result = NO_DEVICE;
    if (result == OK) {
      see(&node);
      pthread_atfork(NULL, NULL, after_fork);
      prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0); /* Without root: let a caller look. */
      if (pthread_create(&thread, NULL, watch, NULL)) result = OPERATING_SYSTEM;
      while (result == OK && mailbox.magic != MAGIC) rest(100000);
      initialized = result == OK;
    }
  }
  pthread_mutex_unlock(&gate);
  return result;
}

CUresult cuDriverGetVersion(int *version) {
  struct node node;
  *version = node_read(&node) ? node.cuda : 0;
  return OK;
}

static const struct { CUresult result; const char *name, *text; } errors[] = {
  {OK, "CUDA_SUCCESS", "no error"},
  {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
  {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
  {NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
  {NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
  {INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
  {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
  {OPERATING_SYSTEM, "CUDA_ERROR_OPERATING_SYSTEM", "OS call failed or operation not supported on this OS"},
  {ILLEGAL_STATE, "CUDA_ERROR_ILLEGAL_STATE", "the operation cannot be performed in the present state"},
  {NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
  {NOT_READY, "CUDA_ERROR_NOT_READY", "device not ready"},
  {UNKNOWN, "CUDA_ERROR_UNKNOWN", "unknown error"},
};

static int error_row(CUresult result) {
  int row = 0, last = sizeof errors / sizeof *errors - 1;
  while (row < last && errors[row].result != result) row++;
  return row;
}

CUresult cuGetErrorName(CUresult result, const char **name) { *name = errors[error_row(result)].name; return OK; }
CUresult cuGetErrorString(CUresult result, const char **text) { *text = errors[error_row(result)].text; return OK; }

static struct context *device(int ordinal) {
  return ordinal >= 0 && ordinal < context_count ? &contexts[ordinal] : NULL;
}

CUresult cuDeviceGetCount(int *count) {
  if (!initialized) return NOT_INITIALIZED;
  *count = context_count;
  return OK;
}

CUresult cuDeviceGet(int *handle, int ordinal) {
  if (!initialized) return NOT_INITIALIZED;
  if (!device(ordinal)) return INVALID_DEVICE;
  *handle = ordinal;
  return OK;
}

CUresult cuDeviceGetName(char *name, int size, int ordinal) {
  if (!device(ordinal)) return INVALID_DEVICE;
  snprintf(name, (size_t)size, "%s", device(ordinal)->gpu.name);
  return OK;
}

CUresult cuDeviceGetUuid_v2(unsigned char *uuid, int ordinal) {
  if (!device(ordinal)) return INVALID_DEVICE;
  const char *at = strchr(device(ordinal)->gpu.uuid, '-');
  for (int i = 0; at && i < 16; i++) {
    unsigned int byte = 0;
    at += strspn(at, "-");
    sscanf(at, "%2x", &byte);
    uuid[i] = (unsigned char)byte;
    at += 2;
  }
  return OK;
}

CUresult cuDeviceTotalMem_v2(size_t *bytes, int ordinal) {
  if (!device(ordinal)) return INVALID_DEVICE;
  *bytes = device(ordinal)->gpu.memory;
  return OK;
}

CUresult cuDevicePrimaryCtxRetain(struct context **context, int ordinal) {
  ENTER();
  if (!device(ordinal)) return leave(INVALID_DEVICE);
  CUresult result = OK;
  pthread_mutex_lock(&gate);
  if (device(ordinal)->references == 0) result = context_open(device(ordinal), 0);
  if (result == OK) {
    device(ordinal)->references++;
    *context = device(ordinal);
  }
  pthread_mutex_unlock(&gate);
  return leave(result);
}

CUresult cuDevicePrimaryCtxRelease_v2(int ordinal) {
  ENTER();
  struct context *context = device(ordinal);
  if (!context || !context->references) return leave(INVALID_CONTEXT);
  pthread_mutex_lock(&gate);
  if (--context->references == 0) {
    context_close(context);
    for (int i = 0; i < MAX_ALLOCATIONS; i++) {
      if (allocations[i].context == context) memset(&allocations[i], 0, sizeof allocations[i]);
    }
  }
  pthread_mutex_unlock(&gate);
  return leave(OK);
}

CUresult cuCtxSetCurrent(struct context *context) { current = context; return OK; }
CUresult cuCtxGetCurrent(struct context **context) { *context = current; return OK; }

CUresult cuCtxGetDevice(int *ordinal) {
  if (!current) return INVALID_CONTEXT;
  *ordinal = (int)(current - contexts);
  return OK;
}

CUresult cuCtxSynchronize(void) {
  ENTER();
  return leave(current ? OK : INVALID_CONTEXT);
}

/* -- memory -- */
CUresult cuMemGetInfo_v2(size_t *available, size_t *total) {
  ENTER();
  if (!current) return leave(INVALID_CONTEXT);
  int lock = gpu_lock(current->gpu.uuid);
  *total = current->gpu.memory;
  *available = *total - gpu_used(current->gpu.uuid, NULL, NULL);
  close(lock);
  return leave(OK);
}

CUresult cuMemAlloc_v2(CUdeviceptr *pointer, size_t bytes) {
  ENTER();
  if (!current || current->fd < 0) return leave(INVALID_CONTEXT);
  if (!bytes) return leave(INVALID_VALUE);
  pthread_mutex_lock(&gate);
  struct allocation *free_row = NULL;
  for (int i = 0; i < MAX_ALLOCATIONS && !free_row; i++) {
    if (!allocations[i].bytes) free_row = &allocations[i];
  }
  CUresult result = free_row ? charge(current, bytes) : OUT_OF_MEMORY;
  if (result == OK) {
    if (current->end < HEADER_BYTES) current->end = HEADER_BYTES;
    *free_row = (struct allocation){next_pointer, bytes, current->end, current, NULL};
    current->end += (bytes + 4095) & ~4095ULL;
    next_pointer += (bytes + (2 << 20)) & ~((2ULL << 20) - 1);
    *pointer = free_row->pointer;
  }
  pthread_mutex_unlock(&gate);
  return leave(result);
}

CUresult cuMemFree_v2(CUdeviceptr pointer) {
  ENTER();
  pthread_mutex_lock(&gate);
  struct allocation *a = find(pointer, 1);
  CUresult result = a && a->pointer == pointer ? OK : INVALID_VALUE;
  if (result == OK) {
    int lock = gpu_lock(a->context->gpu.uuid);
    a->context->used -= a->bytes;
    store_used(a->context);
    fallocate(a->context->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)a->offset, (off_t)a->bytes);
    close(lock);
    memset(a, 0, sizeof *a);
  }
  pthread_mutex_unlock(&gate);
  return leave(result);
}

static CUresult transfer(CUdeviceptr pointer, char *host, size_t bytes, int to_device) {
  ENTER();
  CUresult result = injected("copy", (uint32_t)getpid());
  struct allocation *a = find(pointer, bytes);
  if (!a) result = INVALID_VALUE;
  if (result == OK) result = copy(a->context, a->offset + (pointer - a->pointer), host, bytes, to_device);
  return leave(result);
}

CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t bytes) { return transfer(to, (char *)from, bytes, 1); }
CUresult cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t bytes) { return transfer(from, to, bytes, 0); }

/* -- finding all of it; cuda-bindings asks here only -- */
CUresult cuGetProcAddress_v2(const char *symbol, void **function, int version, uint64_t flags, int *status);

CUresult cuGetProcAddress(const char *symbol, void **function, int version, uint64_t flags) {
  return cuGetProcAddress_v2(symbol, function, version, flags, NULL);
}

#define PLAIN(name) {#name, (void *)name}
#define SECOND(name) {#name, (void *)name##_v2}
static const struct { const char *name; void *function; } functions[] = {
  PLAIN(cuInit), PLAIN(cuDriverGetVersion), PLAIN(cuGetErrorName), PLAIN(cuGetErrorString),
  PLAIN(cuDeviceGetCount), PLAIN(cuDeviceGet), PLAIN(cuDeviceGetName), SECOND(cuDeviceGetUuid),
  SECOND(cuDeviceTotalMem), PLAIN(cuDevicePrimaryCtxRetain), SECOND(cuDevicePrimaryCtxRelease),
  PLAIN(cuCtxSetCurrent), PLAIN(cuCtxGetCurrent), PLAIN(cuCtxGetDevice), PLAIN(cuCtxSynchronize),
  SECOND(cuMemGetInfo), SECOND(cuMemAlloc), SECOND(cuMemFree), SECOND(cuMemcpyHtoD),
  SECOND(cuMemcpyDtoH), SECOND(cuGetProcAddress), PLAIN(cuCheckpointProcessGetState),
  PLAIN(cuCheckpointProcessGetRestoreThreadId), PLAIN(cuCheckpointProcessLock),
  PLAIN(cuCheckpointProcessCheckpoint), PLAIN(cuCheckpointProcessRestore),
  PLAIN(cuCheckpointProcessUnlock),
};

CUresult cuGetProcAddress_v2(const char *symbol, void **function, int version, uint64_t flags, int *status) {
  (void)version;
  (void)flags;
  for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
    if (strcmp(symbol, functions[i].name)) continue;
    *function = functions[i].function;
    if (status) *status = 0;
    return OK;
  }
  *function = NULL;
  if (status) *status = 1;
  return NOT_FOUND;
}
