/* modbus_client PORT read|cycle: libmodbus as a client. For each number of seconds on its standard input it works so
 * long, then prints a line. `read`: 125 registers again and again, prints reads/s. `cycle`: every 10 ms 100 registers
 * are read and 10 written, at absolute deadlines, prints the cycles. */
#include <modbus.h>

#include "plc.h"

#define PERIOD_NS 10000000

static int64_t cycle(modbus_t *bus, uint16_t *registers, int64_t due)
{
    struct timespec at = {due / 1000000000, due % 1000000000};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
    if (modbus_read_registers(bus, 0, 100, registers) != 100)
        return -1;
    registers[0] = due / PERIOD_NS;
    return modbus_write_registers(bus, 30000, 10, registers) == 10 ? due + PERIOD_NS : -1;
}

int main(int argc, char **argv)
{
    modbus_t *bus = modbus_new_tcp("127.0.0.1", argc > 2 ? atoi(argv[1]) : 0);
    uint16_t registers[MODBUS_MAX_READ_REGISTERS];
    double seconds;
    if (argc < 3 || modbus_connect(bus)) {
        perror("modbus_client");
        return 1;
    }
    while (scanf("%lf", &seconds) == 1) {
        int64_t began = now_ns(), end = began + (int64_t)(seconds * 1e9), due = began, count = 0;
        for (; now_ns() < end; count++) {
            if (argv[2][0] == 'c' ? (due = cycle(bus, registers, due)) < 0
                                  : modbus_read_registers(bus, 0, 125, registers) != 125) {
                perror("modbus_client");
                return 1;
            }
        }
        printf("%f\n", argv[2][0] == 'c' ? (double)count : count * 1e9 / (now_ns() - began));
        fflush(stdout);
    }
    return 0;
}
