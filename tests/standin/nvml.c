/* A stand-in for libnvidia-ml.so.1, for machines without a GPU. Ours: no NVIDIA code, see node.h.
 *
 * Enough for the unmodified nvidia-ml-py to list GPUs, MIG devices, memory and processes. What is
 * missing appears there as NVMLError_FunctionNotFound.
 */
#include "node.h"

#include <pthread.h>

enum { SUCCESS = 0, INVALID = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, TOO_SMALL = 7, NO_DRIVER = 9, LOST = 15 };

typedef struct gpu *device_t;
struct memory { unsigned long long total, free, used; };
struct memory_v2 { unsigned int version; unsigned long long total, reserved, free, used; };
struct process { unsigned int pid; unsigned long long used; unsigned int gpu_instance, compute_instance; };

static struct node node; /* Read anew by each listing: handles are rows, as stable as the file. */

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;

/* Other threads read the rows meanwhile: they are written only where the file says something new. */
static int refresh(void) {
  struct node now;
  pthread_mutex_lock(&gate);
  int found = node_read(&now);
  if (memcmp(&node, &now, sizeof node)) node = now;
  pthread_mutex_unlock(&gate);
  return found ? SUCCESS : NO_DRIVER;
}

int nvmlInitWithFlags(unsigned int flags) { (void)flags; return refresh(); }
int nvmlInit_v2(void) { return refresh(); }
int nvmlShutdown(void) { return SUCCESS; }

const char *nvmlErrorString(int result) {
  switch (result) {
    case SUCCESS: return "Success";
    case INVALID: return "Invalid Argument";
    case NOT_SUPPORTED: return "Not Supported";
    case NOT_FOUND: return "Not Found";
    case TOO_SMALL: return "Insufficient Size";
    case NO_DRIVER: return "Driver Not Loaded";
    case LOST: return "GPU is lost";
    default: return "Unknown Error";
  }
}

static int text(char *into, unsigned int size, const char *from) {
  return snprintf(into, size, "%s", from) < (int)size ? SUCCESS : TOO_SMALL;
}

int nvmlSystemGetDriverVersion(char *into, unsigned int size) { return text(into, size, node.driver); }
int nvmlSystemGetCudaDriverVersion_v2(int *version) { *version = node.cuda; return SUCCESS; }

/* The `index`-th row whose parent is `parent`: whole GPUs for -1. */
static int nth(int parent, unsigned int index, device_t *device) {
  for (int row = 0; row < node.count; row++) {
    if (node.gpus[row].parent == parent && index-- == 0) {
      *device = &node.gpus[row];
      return SUCCESS;
    }
  }
  return -1;
}

static unsigned int count(int parent) {
  unsigned int found = 0;
  for (int row = 0; row < node.count; row++) found += node.gpus[row].parent == parent;
  return found;
}

int nvmlDeviceGetCount_v2(unsigned int *devices) {
  int result = refresh();
  *devices = count(-1);
  return result;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, device_t *device) {
  char name[32], path[512];
  snprintf(name, sizeof name, "lost.%u", index);
  node_path(path, sizeof path, "inject", name);
  if (access(path, F_OK) == 0) return LOST;
  return nth(-1, index, device) ? INVALID : SUCCESS;
}

int nvmlDeviceGetName(device_t device, char *into, unsigned int size) { return text(into, size, device->name); }
int nvmlDeviceGetUUID(device_t device, char *into, unsigned int size) { return text(into, size, device->uuid); }

int nvmlDeviceGetMigMode(device_t device, unsigned int *current, unsigned int *pending) {
  if (device->mig_mode < 0) return NOT_SUPPORTED; /* a chip without MIG */
  *current = *pending = (unsigned int)device->mig_mode;
  return SUCCESS;
}

int nvmlDeviceGetMaxMigDeviceCount(device_t device, unsigned int *devices) {
  *devices = device->mig_mode < 0 ? 0 : 7;
  return SUCCESS;
}

int nvmlDeviceGetMigDeviceHandleByIndex(device_t device, unsigned int index, device_t *mig) {
  return nth((int)(device - node.gpus), index, mig) ? NOT_FOUND : SUCCESS;
}

static uint64_t used(device_t device, visit *each, void *argument) {
  int lock = gpu_lock(device->uuid);
  uint64_t sum = gpu_used(device->uuid, each, argument);
  if (lock >= 0) close(lock);
  return sum;
}

int nvmlDeviceGetMemoryInfo(device_t device, struct memory *memory) {
  memory->total = device->memory;
  memory->used = used(device, NULL, NULL);
  for (int row = 0; row < node.count; row++) {
    if (node.gpus[row].parent == device - node.gpus) memory->used += used(&node.gpus[row], NULL, NULL);
  }
  memory->free = memory->total - memory->used;
  return SUCCESS;
}

int nvmlDeviceGetMemoryInfo_v2(device_t device, struct memory_v2 *memory) {
  struct memory plain;
  nvmlDeviceGetMemoryInfo(device, &plain);
  memory->total = plain.total;
  memory->used = plain.used;
  memory->free = plain.free;
  memory->reserved = 0;
  return SUCCESS;
}

/* Who holds the lock on an open file, as this process counts; the kernel translates. */
static unsigned int holder(int fd) {
  struct stat status;
  char line[256], kind[16];
  unsigned int found = 0;
  FILE *locks = fopen("/proc/locks", "re");
  if (!locks || fstat(fd, &status)) return 0;
  while (!found && fgets(line, sizeof line, locks)) {
    int pid;
    unsigned long long inode;
    if (sscanf(line, "%*d: %15s %*s %*s %d %*x:%*x:%llu", kind, &pid, &inode) == 3 &&
        !strcmp(kind, "FLOCK") && inode == status.st_ino && pid > 0) {
      found = (unsigned int)pid;
    }
  }
  fclose(locks);
  return found;
}

struct listing { struct process *into; unsigned int size, count; };

static void list(const char *path, int fd, uint64_t bytes, void *argument) {
  (void)path;
  struct listing *listing = argument;
  unsigned int pid = holder(fd);
  if (!pid) return;
  if (listing->into && listing->count < listing->size) {
    listing->into[listing->count] = (struct process){pid, bytes, 0xffffffff, 0xffffffff};
  }
  listing->count++;
}

int nvmlDeviceGetComputeRunningProcesses_v3(device_t device, unsigned int *size, struct process *into) {
  struct listing listing = {into, *size, 0};
  used(device, list, &listing);
  int fits = listing.count == 0 || (into && listing.count <= *size);
  *size = listing.count;
  return fits ? SUCCESS : TOO_SMALL;
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(device_t device, unsigned int *size, struct process *into) {
  (void)device;
  (void)into;
  *size = 0;
  return SUCCESS;
}
