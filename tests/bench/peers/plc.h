/* What the simulated PLCs of the benchmark have in common: a clock, the end of their parent, the reaction they time. */
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* PLC memory of the reaction: the input that edge watches, and the output that its interlock switches off. */
#define INPUT 0
#define OUTPUT 100

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

/* Whether the parent has closed our standard input: it has ended, and so do we. Waits at most so long. */
__attribute__((unused)) static int parent_gone(int wait_ms)
{
    struct pollfd standard = {.fd = 0, .events = POLLIN};
    return poll(&standard, 1, wait_ms) > 0;
}

/* Real-time priority where it is permitted: a PLC is a machine of its own. */
__attribute__((unused)) static void on_its_own(void)
{
    struct sched_param priority = {.sched_priority = 70};
    sched_setscheduler(0, SCHED_FIFO, &priority);
}

static int64_t input_due_ns, input_since_ns;

/* While the output is on, the input comes on after 20 to 60 ms. */
__attribute__((unused)) static void output_is(int on)
{
    if (on && !input_since_ns && !input_due_ns)
        input_due_ns = now_ns() + 20000000 + rand() % 40000000;
    if (!on && input_since_ns) {
        printf("%lld\n", (long long)(now_ns() - input_since_ns));
        fflush(stdout);
        input_since_ns = 0;
    }
}

/* The input now; its edge is when this is called. */
__attribute__((unused)) static int input_is(void)
{
    if (input_due_ns && now_ns() >= input_due_ns) {
        input_due_ns = 0;
        input_since_ns = now_ns();
    }
    return input_since_ns != 0;
}
