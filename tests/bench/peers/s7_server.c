/* s7_server LIBRARY PORTS still|changing|reaction: S7 PLCs on snap7's C server (libsnap7 1.4), each with a DB1 of 4096
 * bytes, on ports of 127.0.0.1 that it prints. `changing` changes every byte of DB1 after each read; `reaction` prints
 * how long the output (DB1.DBW100) took to follow the input (DB1.DBW0), in ns. It ends with its standard input. */
#include <arpa/inet.h>
#include <dlfcn.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "plc.h"

#define SIZE 4096
#define LOCAL_PORT 1 /* p_u16_LocalPort */
#define DB 5         /* srvAreaDB */
#define DATA_READ 0x00020000
#define DATA_WRITE 0x00040000

typedef struct {
    time_t time;
    int sender;
    uint32_t code;
    uint16_t result, parameters[4];
} Event;
typedef void (*Heard)(void *, Event *, int);

static void *library;
static char how;

/* A function of the library. */
static void *call(const char *name)
{
    void *found = dlsym(library, name);
    if (!found) {
        fprintf(stderr, "s7_server: %s\n", dlerror());
        exit(1);
    }
    return found;
}

static int free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int held = socket(AF_INET, SOCK_STREAM, 0);
    bind(held, (struct sockaddr *)&address, size);
    getsockname(held, (struct sockaddr *)&address, &size);
    close(held);
    return ntohs(address.sin_port);
}

static void changed(void *memory, Event *event, int size)
{
    uint64_t *words = memory;
    (void)event, (void)size;
    for (int place = 0; place < SIZE / 8; place++)
        words[place] += UINT64_C(0x0001000100010001); /* each 16 bits; floats stay numbers for long */
}

static void written(void *memory, Event *event, int size)
{
    (void)size;
    if (event->code == DATA_WRITE)
        output_is(((uint8_t *)memory)[OUTPUT + 1]);
}

static int serve(int port)
{
    uint16_t number = port;
    uint8_t *memory = calloc(1, SIZE);
    uintptr_t server = ((uintptr_t(*)(void))call("Srv_Create"))();
    int (*listen_to)(uintptr_t, Heard, void *) = call("Srv_SetEventsCallback");
    if (how == 'c')
        listen_to = call("Srv_SetReadEventsCallback");
    ((int (*)(uintptr_t, int, void *))call("Srv_SetParam"))(server, LOCAL_PORT, &number);
    ((int (*)(uintptr_t, int, uint16_t, void *, int))call("Srv_RegisterArea"))(server, DB, 1, memory, SIZE);
    ((int (*)(uintptr_t, int, uint32_t))call("Srv_SetMask"))(server, 0, how == 'r' ? DATA_WRITE : 0);
    ((int (*)(uintptr_t, int, uint32_t))call("Srv_SetMask"))(server, 1, 0);
    if (how != 's')
        listen_to(server, how == 'c' ? changed : written, memory);
    if (((int (*)(uintptr_t, const char *))call("Srv_StartTo"))(server, "127.0.0.1"))
        return 0;
    if (how == 'r')
        while (!parent_gone(1))
            memory[INPUT + 1] = input_is();
    return 1;
}

int main(int argc, char **argv)
{
    int ports = argc > 3 ? atoi(argv[2]) : 0;
    library = argc > 3 ? dlopen(argv[1], RTLD_NOW) : NULL;
    if (!library || ports < 1) {
        fprintf(stderr, "s7_server: %s\n", library ? "no ports" : dlerror());
        return 1;
    }
    how = argv[3][0];
    on_its_own();
    for (int count = 0; count < ports; count++) {
        int port = free_port();
        printf("%d%c", port, count + 1 == ports ? '\n' : ' ');
        fflush(stdout);
        if (!serve(port))
            return 1;
    }
    while (!parent_gone(-1))
        ;
    _exit(0); /* the library's threads are not waited for */
}
