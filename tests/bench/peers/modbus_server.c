/* modbus_server PORTS still|changing|writes|reaction: Modbus/TCP devices on ports of 127.0.0.1 that it prints. It reads
 * all that has come and answers the reads of registers in one piece; whatever else is asked libmodbus answers. `changing` counts up every register below WRITTEN that was read; `writes` does too, and prints when each
 * write came (CLOCK_MONOTONIC, ns); `reaction` prints how long the output took to follow the input. It ends with its
 * standard input. */
#include <errno.h>
#include <modbus.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "plc.h"

#define MOST 512
#define ASKED (64 * MODBUS_TCP_MAX_ADU_LENGTH)
#define WRITTEN 30000 /* registers from here on are the client's */

static int listen_locally(int *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&address, size) || listen(listener, 16)
        || getsockname(listener, (struct sockaddr *)&address, &size)) {
        perror("modbus_server");
        exit(1);
    }
    *port = ntohs(address.sin_port);
    return listener;
}

static void count_up(modbus_mapping_t *memory, const uint8_t *pdu)
{
    int first = pdu[1] << 8 | pdu[2], count = pdu[3] << 8 | pdu[4];
    uint16_t *registers = pdu[0] == MODBUS_FC_READ_HOLDING_REGISTERS ? memory->tab_registers
        : pdu[0] == MODBUS_FC_READ_INPUT_REGISTERS                   ? memory->tab_input_registers
                                                                     : NULL;
    for (int place = first; registers && place < first + count && place < WRITTEN; place++)
        registers[place]++;
}

/* One end of a poll: a listener, or a connection with the bytes of requests that are not yet whole. */
static struct pollfd ends[MOST] = {{.fd = 0, .events = POLLIN}};
static struct asked {
    uint8_t bytes[ASKED];
    int size;
} *asked[MOST];

/* The answer to a read of registers at `out`; its size, 0 where it is another request. */
static int answer_read(const modbus_mapping_t *memory, const uint8_t *request, uint8_t *out)
{
    const uint8_t *pdu = request + 7;
    int first = pdu[1] << 8 | pdu[2], count = pdu[3] << 8 | pdu[4], size = 9 + 2 * count;
    const uint16_t *from = (pdu[0] == MODBUS_FC_READ_HOLDING_REGISTERS ? memory->tab_registers
                                                                       : memory->tab_input_registers)
        + first;
    if ((pdu[0] != MODBUS_FC_READ_HOLDING_REGISTERS && pdu[0] != MODBUS_FC_READ_INPUT_REGISTERS)
        || count < 1 || count > MODBUS_MAX_READ_REGISTERS || first + count > 65536)
        return 0;
    memcpy(out, request, 8); /* transaction, protocol, length, unit, function */
    out[4] = 0;
    out[5] = size - 6;
    out[8] = 2 * count;
    for (int place = 0; place < count; place++)
        ((uint16_t *)(out + 9))[place] = htons(from[place]);
    return size;
}

/* Answers every whole request that has come on a connection; 0 where it has ended. */
static int serve(modbus_t *bus, modbus_mapping_t *memory, char how, int end, struct asked *asked)
{
    static uint8_t out[ASKED / 12 * MODBUS_TCP_MAX_ADU_LENGTH];
    int size, at = 0, ready = 0, got = read(end, asked->bytes + asked->size, ASKED - asked->size);
    if (got <= 0)
        return 0;
    asked->size += got;
    for (; asked->size - at >= 8 && asked->size - at >= (size = 6 + (asked->bytes[at + 4] << 8 | asked->bytes[at + 5]));
         at += size) {
        uint8_t *request = asked->bytes + at;
        int answer = size == 12 ? answer_read(memory, request, out + ready) : 0;
        if (size > MODBUS_TCP_MAX_ADU_LENGTH)
            return 0;
        ready += answer;
        if (!answer) {
            if (ready && write(end, out, ready) != ready)
                return 0;
            ready = 0;
            modbus_set_socket(bus, end);
            if (modbus_reply(bus, request, size, memory) < 0)
                return 0;
        }
        if (how == 'c' || how == 'w')
            count_up(memory, request + 7);
        if (how == 'w' && request[7] > MODBUS_FC_READ_INPUT_REGISTERS) {
            printf("%lld\n", (long long)now_ns());
            fflush(stdout);
        }
    }
    memmove(asked->bytes, asked->bytes + at, asked->size -= at);
    return !ready || write(end, out, ready) == ready;
}

int main(int argc, char **argv)
{
    int listeners = argc > 2 ? atoi(argv[1]) : 0;
    char how = argc > 2 ? argv[2][0] : 's';
    int used = 1;
    on_its_own();
    for (; used <= listeners && used < MOST / 2; used++) {
        int port;
        ends[used] = (struct pollfd){.fd = listen_locally(&port), .events = POLLIN};
        printf("%d%c", port, used == listeners ? '\n' : ' ');
    }
    fflush(stdout);
    modbus_t *bus = modbus_new_tcp("127.0.0.1", 0);
    modbus_mapping_t *memory = modbus_mapping_new(65536, 65536, 65536, 65536);
    for (int count; (count = poll(ends, used, how == 'r' ? 1 : -1)) >= 0;) {
        if (ends[0].revents)
            return 0;
        if (how == 'r')
            memory->tab_registers[INPUT] = input_is();
        for (int place = 1, before = used; place < before; place++) {
            if (!ends[place].revents)
                continue;
            if (place <= listeners) {
                int one = 1, end = accept(ends[place].fd, NULL, NULL);
                setsockopt(end, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                if (used < MOST) {
                    asked[used] = calloc(1, sizeof(struct asked));
                    ends[used++] = (struct pollfd){.fd = end, .events = POLLIN};
                }
                continue;
            }
            if (!serve(bus, memory, how, ends[place].fd, asked[place])) {
                close(ends[place].fd);
                free(asked[place]);
                ends[place] = ends[--used];
                asked[place] = asked[used];
                break; /* the one that took this place is asked in the next turn */
            }
            if (how == 'r')
                output_is(memory->tab_registers[OUTPUT]);
        }
    }
    return 1;
}
