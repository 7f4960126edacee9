/* A cheap load client, the same for every server: HTTP/1.1, length-prefixed frames, and gRPC (HTTP/2, prior knowledge).
 *
 * client MODE ADDRESS REQUEST_FILE CONNECTIONS SECONDS PAUSE_US RATE WARMUP
 *   MODE     http | frame | grpc          ADDRESS  host:port | /path/of/unix/socket
 *   RATE     0: closed loop (each connection sends when it was answered, after PAUSE_US);
 *            else requests a second over all connections, on a schedule that does not wait for slow answers
 * Prints one JSON object: answers by status, seconds, p50, p95, p99 and greatest latency of the 200s in microseconds.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum mode { HTTP, FRAME, GRPC };
enum { BUFFER = 1 << 18, STATUSES = 600 };

struct connection {
    int fd, busy;
    size_t have;
    double started, next;
    uint32_t stream;
    int status;
    char *in;
    char *out;
    size_t out_size;
};

static enum mode mode;
static char *body;
static size_t body_size;
static long counts[STATUSES], broken;
static double *latencies;
static size_t latency_count, latency_room;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void fail(const char *what)
{
    perror(what);
    exit(2);
}

static int dial(const char *address)
{
    int fd;
    if (address[0] == '/') {
        struct sockaddr_un to = {.sun_family = AF_UNIX};
        strncpy(to.sun_path, address, sizeof to.sun_path - 1);
        fd = socket(AF_UNIX, SOCK_STREAM, 0);
        if (connect(fd, (struct sockaddr *)&to, sizeof to)) fail(address);
        return fd;
    }
    char host[64] = {0};
    const char *colon = strrchr(address, ':');
    if (!colon || (size_t)(colon - address) >= sizeof host) exit(2);
    memcpy(host, address, (size_t)(colon - address));
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(colon + 1))};
    inet_pton(AF_INET, host, &to.sin_addr);
    fd = socket(AF_INET, SOCK_STREAM, 0);
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(fd, (struct sockaddr *)&to, sizeof to)) fail(address);
    return fd;
}

static void write_all(int fd, const char *data, size_t size)
{
    while (size) {
        ssize_t n = send(fd, data, size, MSG_NOSIGNAL);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) continue;
        if (n <= 0) fail("send");
        data += n;
        size -= (size_t)n;
    }
}

/* HTTP/2: the request's frames are made once; only the stream id changes. body = path NUL message. */
static void put_frame(char **to, size_t size, int type, int flags)
{
    char *p = *to;
    p[0] = (char)(size >> 16), p[1] = (char)(size >> 8), p[2] = (char)size;
    p[3] = (char)type, p[4] = (char)flags;
    memset(p + 5, 0, 4);
    *to += 9;
}

static void put_literal(char **to, const char *name, const char *value)
{
    char *p = *to;
    *p++ = 0; /* literal without indexing, new name */
    *p++ = (char)strlen(name);
    p = stpcpy(p, name);
    *p++ = (char)strlen(value);
    p = stpcpy(p, value);
    *to = p;
}

static void make_grpc(struct connection *c)
{
    const char *path = body, *message = body + strlen(body) + 1;
    size_t size = body_size - strlen(body) - 1;
    c->out = malloc(size + 4096);
    char *p = c->out, *head = p;
    p += 9;
    put_literal(&p, ":method", "POST");
    put_literal(&p, ":scheme", "http");
    put_literal(&p, ":path", path);
    put_literal(&p, ":authority", "node");
    put_literal(&p, "te", "trailers");
    put_literal(&p, "content-type", "application/grpc");
    put_frame(&head, (size_t)(p - c->out) - 9, 1, 4);
    size_t left = size + 5, done = 0;
    char *whole = malloc(left);
    whole[0] = 0;
    for (int i = 0; i < 4; i++) whole[1 + i] = (char)(size >> (24 - 8 * i));
    memcpy(whole + 5, message, size);
    while (done < left) {
        size_t part = left - done > 16384 ? 16384 : left - done;
        put_frame(&p, part, 0, done + part == left);
        memcpy(p, whole + done, part);
        p += part;
        done += part;
    }
    free(whole);
    c->out_size = (size_t)(p - c->out);
}

static void set_streams(struct connection *c)
{
    for (size_t at = 0; at < c->out_size;) {
        unsigned char *f = (unsigned char *)c->out + at;
        for (int i = 0; i < 4; i++) f[5 + i] = (unsigned char)(c->stream >> (24 - 8 * i));
        at += 9 + ((size_t)f[0] << 16 | (size_t)f[1] << 8 | f[2]);
    }
}

static void start(struct connection *c, double at)
{
    c->busy = 1;
    c->started = at;
    c->status = 0;
    if (mode == GRPC) {
        set_streams(c);
        write_all(c->fd, c->out, c->out_size);
    } else {
        write_all(c->fd, body, body_size);
    }
}

/* How many bytes of the buffer one whole answer takes; 0: not whole yet. */
static size_t http_answer(struct connection *c)
{
    char *end = memmem(c->in, c->have, "\r\n\r\n", 4);
    if (!end) return 0;
    c->status = atoi(c->in + 9);
    size_t head = (size_t)(end - c->in) + 4;
    char saved = *end;
    *end = 0; /* the head is searched as a string */
    char *field = strcasestr(c->in, "\r\ncontent-length:");
    int chunked = strcasestr(c->in, "transfer-encoding: chunked") != NULL;
    *end = saved;
    if (chunked) {
        char *last = memmem(c->in + head, c->have - head, "0\r\n\r\n", 5);
        return last ? (size_t)(last - c->in) + 5 : 0;
    }
    size_t length = field && field < end ? strtoul(field + 17, NULL, 10) : 0;
    return c->have >= head + length ? head + length : 0;
}

static size_t frame_answer(struct connection *c)
{
    uint32_t length;
    if (c->have < 5) return 0;
    memcpy(&length, c->in, 4);
    c->status = c->in[4] == 0 ? 200 : c->in[4] == 4 ? 503 : 400;
    return c->have >= 4 + (size_t)length ? 4 + (size_t)length : 0;
}

static size_t grpc_answer(struct connection *c)
{
    size_t at = 0;
    while (c->have >= at + 9) {
        unsigned char *f = (unsigned char *)c->in + at;
        size_t size = (size_t)f[0] << 16 | (size_t)f[1] << 8 | f[2];
        if (c->have < at + 9 + size) break;
        uint32_t stream = ((uint32_t)f[5] & 127) << 24 | (uint32_t)f[6] << 16 | (uint32_t)f[7] << 8 | f[8];
        if (f[3] == 0 && size) { /* give the window back */
            char update[26] = {0, 0, 4, 8, 0};
            for (int i = 0; i < 4; i++) update[9 + i] = (char)(size >> (24 - 8 * i));
            write_all(c->fd, update, 13);
            c->status = 200; /* a refusal of gRPC carries no message */
        }
        if (f[3] == 4 && !(f[4] & 1)) write_all(c->fd, "\0\0\0\4\1\0\0\0\0", 9);
        if (f[3] == 6 && !(f[4] & 1)) {
            char pong[17] = {0, 0, 8, 6, 1};
            memcpy(pong + 9, f + 9, 8);
            write_all(c->fd, pong, 17);
        }
        if (f[3] == 7 || f[3] == 3) c->status = 500; /* GOAWAY, RST_STREAM */
        int ends = (f[3] == 0 || f[3] == 1) && (f[4] & 1) && stream == c->stream;
        at += 9 + size;
        if (ends) {
            c->stream += 2;
            if (!c->status) c->status = 500;
            return at;
        }
    }
    memmove(c->in, c->in + at, c->have - at);
    c->have -= at;
    return 0;
}

static void keep(double seconds)
{
    if (latency_count == latency_room) {
        latency_room = latency_room ? latency_room * 2 : 1 << 16;
        latencies = realloc(latencies, latency_room * sizeof *latencies);
        if (!latencies) fail("memory");
    }
    latencies[latency_count++] = seconds * 1e6;
}

static int receive(struct connection *c, int counting)
{
    ssize_t n = recv(c->fd, c->in + c->have, BUFFER - c->have, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
    if (n <= 0) return -1;
    c->have += (size_t)n;
    size_t used = mode == HTTP ? http_answer(c) : mode == FRAME ? frame_answer(c) : grpc_answer(c);
    if (!used) return 0;
    memmove(c->in, c->in + used, c->have - used);
    c->have -= used;
    c->busy = 0;
    if (counting) {
        counts[c->status > 0 && c->status < STATUSES ? c->status : 0]++;
        if (c->status == 200) keep(now() - c->started);
    }
    return 1;
}

static void open_connection(struct connection *c, const char *address)
{
    c->fd = dial(address);
    c->busy = 0;
    c->have = 0;
    c->stream = 1;
    if (mode == GRPC) {
        const char hello[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0";
        write_all(c->fd, hello, sizeof hello - 1);
        if (!c->out) make_grpc(c);
    }
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void report(double seconds)
{
    qsort(latencies, latency_count, sizeof *latencies, ascending);
    double quantiles[] = {0.5, 0.95, 0.99, 1.0};
    const char *names[] = {"p50", "p95", "p99", "max"};
    printf("{\"seconds\": %.6f, \"broken\": %ld, \"statuses\": {", seconds, broken);
    const char *comma = "";
    for (int i = 0; i < STATUSES; i++)
        if (counts[i]) printf("%s\"%d\": %ld", comma, i, counts[i]), comma = ", ";
    printf("}");
    for (int i = 0; i < 4; i++) {
        size_t place = latency_count ? (size_t)(quantiles[i] * (double)(latency_count - 1)) : 0;
        printf(", \"%s\": %.2f", names[i], latency_count ? latencies[place] : -1.0);
    }
    printf("}\n");
}

int main(int argc, char **argv)
{
    if (argc != 9) return fprintf(stderr, "client MODE ADDRESS FILE CONNECTIONS SECONDS PAUSE_US RATE WARMUP\n"), 2;
    mode = !strcmp(argv[1], "http") ? HTTP : !strcmp(argv[1], "frame") ? FRAME : GRPC;
    FILE *file = fopen(argv[3], "rb");
    if (!file) fail(argv[3]);
    body = malloc(16 << 20);
    body_size = fread(body, 1, 16 << 20, file);
    int many = atoi(argv[4]), warm = atoi(argv[8]);
    double seconds = atof(argv[5]), pause = atof(argv[6]) * 1e-6, rate = atof(argv[7]);
    struct connection *all = calloc((size_t)many, sizeof *all);
    int poll = epoll_create1(0);
    for (int i = 0; i < many; i++) {
        all[i].in = malloc(BUFFER);
        open_connection(&all[i], argv[2]);
        struct epoll_event e = {.events = EPOLLIN, .data.u32 = (uint32_t)i};
        epoll_ctl(poll, EPOLL_CTL_ADD, all[i].fd, &e);
    }
    for (int i = 0; i < warm; i++) {
        start(&all[0], now());
        while (all[0].busy)
            if (receive(&all[0], 0) < 0) return fprintf(stderr, "the server closed during warm-up\n"), 3;
    }
    double began = now(), until = began + seconds;
    for (int i = 0; i < many; i++) all[i].next = rate > 0 ? began + (i + 1) / rate : began;
    int in_flight = 0;
    while (now() < until || in_flight) {
        double at = now(), soonest = until;
        if (at > until + 5) break;
        for (int i = 0; i < many && at < until; i++) {
            struct connection *c = &all[i];
            if (c->busy) continue;
            if (c->next <= at) {
                start(c, rate > 0 ? c->next : at);
                in_flight++;
                if (rate > 0) c->next += many / rate;
            } else if (c->next < soonest) {
                soonest = c->next;
            }
        }
        struct epoll_event ready[256];
        double wait = soonest - now();
        struct timespec limit = {0, 0};
        if (wait > 0) limit.tv_sec = (time_t)wait, limit.tv_nsec = (long)((wait - (double)(time_t)wait) * 1e9);
        if (in_flight && at >= until) limit.tv_nsec = 1000000;
        int n = epoll_pwait2(poll, ready, 256, &limit, NULL);
        for (int k = 0; k < n; k++) {
            struct connection *c = &all[ready[k].data.u32];
            int busy = c->busy, done = receive(c, 1);
            if (done < 0) {
                broken += busy;
                in_flight -= busy;
                close(c->fd);
                open_connection(c, argv[2]);
                struct epoll_event e = {.events = EPOLLIN, .data.u32 = ready[k].data.u32};
                epoll_ctl(poll, EPOLL_CTL_ADD, c->fd, &e);
            } else if (done) {
                in_flight--;
                if (rate <= 0) c->next = now() + pause;
            }
        }
    }
    report(now() - began);
    return 0;
}
