/* Loaded before a page server of CRIU's: it brings what nobody has asked for at 20 MB/s. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <stdarg.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_BYTE 50

int ioctl(int fd, unsigned long request, ...) {
    static int (*next)(int, unsigned long, void *);
    va_list rest;
    va_start(rest, request);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    if (!next)
        next = (int (*)(int, unsigned long, void *))dlsym(RTLD_NEXT, "ioctl");
    if (request == UFFDIO_COPY) {
        unsigned long long bytes = ((struct uffdio_copy *)argument)->len;
        if (bytes > (unsigned long long)sysconf(_SC_PAGESIZE)) {
            unsigned long long ns = bytes * NS_PER_BYTE;
            struct timespec pause = {ns / 1000000000, ns % 1000000000};
            nanosleep(&pause, 0);
        }
    }
    return next(fd, request, argument);
}
