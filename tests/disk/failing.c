/* A disk that fails: preloaded, it has calls about the files whose path holds FAILING_FILE fail from the FAILING_AT-th
   write on with FAILING_ERRNO, FAILING_TIMES in a row. Makes FAILING_MARK when it does for the first time.

   With READ_ONLY, a folder on a file system that is mounted read-only: what is below it cannot be opened for writing. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static long number(const char *name) { const char *text = getenv(name); return text ? atol(text) : 0; }

static int fails(int fd) {
    static long count;
    char link[64], path[4096];
    const char *file = getenv("FAILING_FILE");
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (!file || length < 0) return 0;
    path[length] = 0;
    if (!strstr(path, file)) return 0;
    long now = __sync_add_and_fetch(&count, 1), at = number("FAILING_AT");
    if (now < at || now >= at + number("FAILING_TIMES")) return 0;
    if (now == at) {
        int mark = open(getenv("FAILING_MARK"), O_CREAT | O_WRONLY, 0600);
        if (mark >= 0) close(mark);
    }
    errno = (int) number("FAILING_ERRNO");
    return 1;
}

#define FAILING(type, name, parameters, arguments)                              \
    type name parameters {                                                      \
        static type (*real) parameters;                                         \
        if (!real) *(void **) &real = dlsym(RTLD_NEXT, #name);                   \
        return fails(fd) ? -1 : real arguments;                                 \
    }

FAILING(ssize_t, write, (int fd, const void *data, size_t size), (fd, data, size))
FAILING(ssize_t, pwrite, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at))
FAILING(ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at))
FAILING(int, fsync, (int fd), (fd))
FAILING(int, fdatasync, (int fd), (fd))
FAILING(int, ftruncate, (int fd, off_t size), (fd, size))
FAILING(int, ftruncate64, (int fd, off64_t size), (fd, size))

static int read_only(const char *path, int flags) {
    const char *folder = getenv("READ_ONLY");
    if (!folder || strncmp(path, folder, strlen(folder)) || !(flags & (O_WRONLY | O_RDWR | O_CREAT))) return 0;
    errno = EROFS;
    return 1;
}

#define OPENING(name)                                                            \
    int name(const char *path, int flags, ...) {                                 \
        static int (*real)(const char *, int, ...);                              \
        if (!real) *(void **) &real = dlsym(RTLD_NEXT, #name);                    \
        va_list rest;                                                            \
        va_start(rest, flags);                                                   \
        int mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, int) : 0;         \
        va_end(rest);                                                            \
        return read_only(path, flags) ? -1 : real(path, flags, mode);            \
    }

OPENING(open)
OPENING(open64)
