/* Loaded before a page server of CRIU's: it brings what nobody has asked for at 2 MB/s, for as long
   as the file SLOW_WHILE is there. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_BYTE 500

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
        const char *slow = getenv("SLOW_WHILE");
        int asked_for = bytes <= (unsigned long long)sysconf(_SC_PAGESIZE);
        if (!asked_for && slow && !access(slow, F_OK)) {
            unsigned long long ns = bytes * NS_PER_BYTE;
            struct timespec pause = {ns / 1000000000, ns % 1000000000};
            nanosleep(&pause, 0);
        }
    }
    return next(fd, request, argument);
}
