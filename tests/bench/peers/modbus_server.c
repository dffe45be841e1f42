/* modbus_server PORTS still|changing|writes|reaction: Modbus/TCP devices on libmodbus, on ports of 127.0.0.1 that it
 * prints. `changing` counts up every register below WRITTEN that was read; `writes` does too, and prints when each
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

int main(int argc, char **argv)
{
    int listeners = argc > 2 ? atoi(argv[1]) : 0;
    char how = argc > 2 ? argv[2][0] : 's';
    struct pollfd ends[MOST] = {{.fd = 0, .events = POLLIN}};
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
    int header = modbus_get_header_length(bus);
    uint8_t query[MODBUS_TCP_MAX_ADU_LENGTH];
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
                if (used < MOST)
                    ends[used++] = (struct pollfd){.fd = end, .events = POLLIN};
                continue;
            }
            modbus_set_socket(bus, ends[place].fd);
            int size = modbus_receive(bus, query);
            if (size < 0 || (size > 0 && modbus_reply(bus, query, size, memory) < 0)) {
                close(ends[place].fd);
                ends[place] = ends[--used];
                break; /* the one that took this place is asked in the next turn */
            }
            if ((how == 'c' || how == 'w') && size > 0)
                count_up(memory, query + header);
            if (query[header] > MODBUS_FC_READ_INPUT_REGISTERS && how == 'w') {
                printf("%lld\n", (long long)now_ns());
                fflush(stdout);
            }
            if (how == 'r')
                output_is(memory->tab_registers[OUTPUT]);
        }
    }
    return 1;
}
