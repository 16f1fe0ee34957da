/* Another date for a program and all its children, while time passes as usual: LD_PRELOAD this, and put into
   ANOTHER_DATE the seconds to add. `tests/run dated 2031-06-01` runs the tests so.

   Only the wall clock is shifted. A wait until a point of the wall clock, which the C library would compare with the true
   clock, is shifted back; jemalloc's background threads wait so. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static time_t shift(void) {
    const char *seconds = getenv("ANOTHER_DATE");
    return seconds ? atol(seconds) : 0;
}

static time_t by;
__attribute__((constructor)) static void read_shift(void) { by = shift(); }

int clock_gettime(clockid_t clock, struct timespec *time) {
    long failed = syscall(SYS_clock_gettime, clock, time);
    if (failed == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) time->tv_sec += by;
    return (int)failed;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    time->tv_sec = now.tv_sec;
    time->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *to) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (to) *to = now.tv_sec;
    return now.tv_sec;
}

/* Times since the machine's start are small. */
static clockid_t clock_of(const struct timespec *until) {
    return until->tv_sec > 1000000000 ? CLOCK_REALTIME : CLOCK_MONOTONIC;
}

static struct timespec truly(const struct timespec *until) {
    struct timespec time = *until;
    if (clock_of(until) == CLOCK_REALTIME) time.tv_sec -= by;
    return time;
}

int pthread_cond_timedwait(pthread_cond_t *restrict cond, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict until) {
    struct timespec time = truly(until);
    return pthread_cond_clockwait(cond, mutex, clock_of(until), &time);
}

int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict until) {
    struct timespec time = truly(until);
    return sem_clockwait(semaphore, clock_of(until), &time);
}
