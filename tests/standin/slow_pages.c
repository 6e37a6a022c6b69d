/* Loaded before a page server of CRIU's: as long as the file SLOW_WHILE is there, it brings what is
   asked for and nothing else.

   The server looks without waiting whether anyone asks for a page, and brings others when nobody
   does: here, it waits until somebody does. A page that the kernel does not take, since the memory
   around it is changing, the server would bring with those others, or at its end: here, who asked is
   woken, and asks again. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <linux/userfaultfd.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define LOOK_MS 20
#define MOST_OWED 64

static struct {
    int fd;
    struct uffdio_range range;
} owed[MOST_OWED];
static int owing;

static int next_ioctl(int fd, unsigned long request, void *argument) {
    static int (*next)(int, unsigned long, void *);
    if (!next)
        next = (int (*)(int, unsigned long, void *))dlsym(RTLD_NEXT, "ioctl");
    return next(fd, request, argument);
}

int ioctl(int fd, unsigned long request, ...) {
    va_list rest;
    va_start(rest, request);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    int result = next_ioctl(fd, request, argument);
    int refused = result && errno == EAGAIN && owing < MOST_OWED;
    if (refused && (request == UFFDIO_COPY || request == UFFDIO_ZEROPAGE)) {
        struct uffdio_copy *copy = argument;
        struct uffdio_range range = {copy->dst, copy->len};
        if (request == UFFDIO_ZEROPAGE)
            range = ((struct uffdio_zeropage *)argument)->range;
        owed[owing].fd = fd;
        owed[owing++].range = range;
    }
    return result;
}

int epoll_wait(int epoll, struct epoll_event *events, int most, int timeout) {
    static int (*next)(int, struct epoll_event *, int, int);
    if (!next)
        next = (int (*)(int, struct epoll_event *, int, int))dlsym(RTLD_NEXT, "epoll_wait");
    const char *slow = getenv("SLOW_WHILE");
    while (timeout == 0 && slow && !access(slow, F_OK)) {
        int found = next(epoll, events, most, LOOK_MS);
        /* One that was stopped and goes on is not told so: it would not have waited here. */
        if (found > 0 || (found < 0 && errno != EINTR))
            return found;
        while (owing > 0) {
            owing--;
            next_ioctl(owed[owing].fd, UFFDIO_WAKE, &owed[owing].range);
        }
    }
    return next(epoll, events, most, timeout);
}
