/* What the stand-in libraries share: the GPUs of a pretended node, in a folder on the host.
 *
 * No NVIDIA code and none of its headers: names, numbers and struct layouts are those of the public
 * interfaces. STANDIN_GPUS names the folder, which every process of the node must be able to write:
 *
 *   gpus                  one line each:  driver VERSION CUDA_VERSION CONTEXT_BYTES
 *                                         gpu UUID BYTES MIG_MODE NAME
 *                                         mig UUID BYTES PROFILE      (a part of the gpu above it)
 *   memory/UUID/CONTEXT   device memory of one process on one GPU: the bytes after a page that tells
 *                         how much of it is allocated. The process holds a lock on the file (flock):
 *                         a file that nobody holds is of a dead process, and is removed.
 *   memory/UUID/.lock     held while the memory of a GPU is counted or changed.
 *   inject/OPERATION[.PID]  "DELAY_MS ERROR": what goes wrong. OPERATION is lock, checkpoint, restore
 *                         or unlock, with PID as the caller counts, or copy or init, with PID as the
 *                         tenant counts. It waits so long, or until the file is gone, and then fails
 *                         with that CUresult unless it is 0. Where it waits, FILE.begun is made.
 *   inject/lost.INDEX     a GPU that has fallen off its bus, as NVML tells.
 *   calls/PID             held by the process that asks a tenant for something.
 *   dev/nvidiaN           device files that CRIU cannot dump. Where STANDIN_DEV names a folder, those
 *                         of that folder are opened instead, and a GPU without one cannot be used.
 */
#ifndef STANDIN_NODE_H
#define STANDIN_NODE_H

#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_GPUS 64
#define HEADER_BYTES 4096

struct gpu {
  char uuid[96], name[160], profile[32];
  uint64_t memory;
  int mig_mode;
  int parent; /* row of the GPU that a MIG device is a part of, or -1 */
};

struct node {
  char driver[32];
  int cuda, count;
  uint64_t context;
  struct gpu gpus[MAX_GPUS];
};

typedef void visit(const char *path, int fd, uint64_t used, void *argument);

static inline const char *node_folder(void) {
  const char *folder = getenv("STANDIN_GPUS");
  return folder ? folder : "/nonexistent";
}

static inline int node_path(char *into, size_t size, const char *kind, const char *name) {
  return snprintf(into, size, "%s/%s/%s", node_folder(), kind, name) < (int)size;
}

/* Read the node's description; 0 where there is none, which is a node without a driver. */
static inline int node_read(struct node *node) {
  char path[512], line[512];
  memset(node, 0, sizeof *node);
  snprintf(path, sizeof path, "%s/gpus", node_folder());
  FILE *file = fopen(path, "re");
  if (!file) return 0;
  int parent = -1;
  while (fgets(line, sizeof line, file) && node->count < MAX_GPUS) {
    struct gpu *gpu = &node->gpus[node->count];
    unsigned long long bytes;
    if (sscanf(line, "driver %31s %d %llu", node->driver, &node->cuda, &bytes) == 3) {
      node->context = bytes;
    } else if (sscanf(line, "gpu %95s %llu %d %79[^\n]", gpu->uuid, &bytes, &gpu->mig_mode,
                      gpu->name) == 4) {
      gpu->memory = bytes;
      gpu->parent = -1;
      parent = node->count++;
    } else if (parent >= 0 &&
               sscanf(line, "mig %95s %llu %31s", gpu->uuid, &bytes, gpu->profile) == 3) {
      gpu->memory = bytes;
      gpu->parent = parent;
      const struct gpu part = *gpu, whole = node->gpus[parent];
      snprintf(gpu->name, sizeof gpu->name, "%.79s MIG %s", whole.name, part.profile);
      node->count++;
    }
  }
  fclose(file);
  return node->driver[0] != 0;
}

static inline int gpu_lock(const char *uuid) {
  char name[160], path[512];
  node_path(path, sizeof path, "memory", uuid);
  mkdir(path, 0777);
  snprintf(name, sizeof name, "%s/.lock", uuid);
  node_path(path, sizeof path, "memory", name);
  int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (fd >= 0) flock(fd, LOCK_EX);
  return fd;
}

/* Return the bytes that living processes hold; the GPU's lock is held. */
static inline uint64_t gpu_used(const char *uuid, visit *each, void *argument) {
  char folder[512], path[800];
  uint64_t sum = 0;
  node_path(folder, sizeof folder, "memory", uuid);
  DIR *entries = opendir(folder);
  if (!entries) return 0;
  for (struct dirent *entry; (entry = readdir(entries));) {
    if (entry->d_name[0] == '.') continue;
    snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) continue;
    uint64_t used = 0;
    if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
      unlink(path);
    } else if (pread(fd, &used, sizeof used, 0) == sizeof used) {
      sum += used;
      if (each) each(path, fd, used, argument);
    }
    close(fd);
  }
  closedir(entries);
  return sum;
}

#endif
