// The clients of the bench: N connections, each sends its next request when its last answer ended. One thread,
// loopback only. Prints one JSON object.
//
//   client --port P --path PATH --body FILE [--header "Name: value"]... --streams N --seconds S
//          [--spread-ms MS] [--tokens N] [--end TEXT]
//
// An answer counts when its status is 200, it holds exactly N token stamps (see engine.c) and, with `--end`, that
// text. Whatever else happens is counted as a failure by kind; nothing is retried silently.
// Times: from the write of a request to the read of its first token, and from a token's stamp to its read.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { STAMP_BYTES = 21, READ_BYTES = 262144, DRAIN_S = 15 };
enum { FAULT_CONNECT, FAULT_STATUS, FAULT_CUT, FAULT_TOKENS, FAULT_END, FAULT_UNFINISHED, FAULTS };
static const char *const FAULT_NAMES[FAULTS] = {"connect", "status", "cut", "tokens", "end", "unfinished"};

typedef struct {
    float *values;
    size_t count, capacity;
} Samples;

typedef enum { HEAD, CHUNK_SIZE, CHUNK, CHUNK_END, TRAILER, SIZED, DONE } Part;

typedef struct {
    int socket;
    Part part;
    char *text; // the head, later the end of the payload that a stamp may be split over
    size_t length, capacity;
    long long left, sent_ns, first_ns, start_ns;
    int tokens;
    bool bad_status, ended, idle;
} Client;

static struct {
    int port, streams, tokens, spread_ms;
    double seconds;
    const char *end;
    char *request;
    size_t request_length;
} plan = {.streams = 1, .seconds = 1};

static int epoll;
static long long stop_ns, answers, stamps, faults[FAULTS];
static Samples first_us, travel_us;

static long long now_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static void keep(Samples *samples, double value) {
    if (samples->count == samples->capacity) {
        samples->capacity = samples->capacity ? samples->capacity * 2 : 65536;
        samples->values = realloc(samples->values, samples->capacity * sizeof *samples->values);
        if (!samples->values) abort();
    }
    samples->values[samples->count++] = (float)value;
}

static void keep_text(Client *client, const char *bytes, size_t length) {
    if (client->length + length + 1 > client->capacity) {
        client->capacity = (client->length + length + 1) * 2;
        client->text = realloc(client->text, client->capacity);
        if (!client->text) abort();
    }
    memcpy(client->text + client->length, bytes, length);
    client->length += length;
    client->text[client->length] = 0;
}

static bool dial(Client *client) {
    int on = 1;
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)plan.port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    client->socket = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(client->socket, (struct sockaddr *)&address, sizeof address)) {
        close(client->socket);
        return false;
    }
    setsockopt(client->socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct epoll_event wanted = {.events = EPOLLIN, .data.ptr = client};
    epoll_ctl(epoll, EPOLL_CTL_ADD, client->socket, &wanted);
    return true;
}

// Requests are small: a blocking write of one never waits on loopback.
static bool send_request(Client *client) {
    client->part = HEAD;
    client->length = 0;
    client->tokens = 0;
    client->first_ns = client->left = 0;
    client->bad_status = client->ended = client->idle = false;
    client->sent_ns = now_ns();
    return send(client->socket, plan.request, plan.request_length, MSG_NOSIGNAL) == (ssize_t)plan.request_length;
}

static long long stamp_of(const char *text) {
    long long value = 0;
    for (int i = 2; i < STAMP_BYTES; i++) {
        if (text[i] < '0' || text[i] > '9') return -1;
        value = value * 10 + text[i] - '0';
    }
    return value;
}

// Counts the stamps in the payload so far and keeps only the tail that the next read may complete.
static void read_payload(Client *client, const char *bytes, size_t length, long long read_ns) {
    keep_text(client, bytes, length);
    char *at = client->text, *stop = client->text + client->length, *found;
    if (plan.end && memmem(at, client->length, plan.end, strlen(plan.end))) client->ended = true;
    while ((found = memmem(at, (size_t)(stop - at), "t=", 2)) && stop - found >= STAMP_BYTES) {
        long long stamp = stamp_of(found);
        at = found + 2;
        if (stamp < 0) continue;
        at = found + STAMP_BYTES;
        client->tokens++;
        if (stamp) keep(&travel_us, (double)(read_ns - stamp) / 1e3);
        if (!client->first_ns) {
            client->first_ns = read_ns;
            keep(&first_us, (double)(read_ns - client->sent_ns) / 1e3);
        }
    }
    size_t tail = (size_t)(stop - at) < 64 ? (size_t)(stop - at) : 64;
    memmove(client->text, stop - tail, tail);
    client->length = tail;
}

static size_t read_head(Client *client, const char *bytes, size_t length) {
    size_t before = client->length;
    keep_text(client, bytes, length);
    char *end = memmem(client->text, client->length, "\r\n\r\n", 4);
    if (!end) return length;
    size_t used = (size_t)(end - client->text) + 4 - before;
    *end = 0;
    client->bad_status = strncmp(client->text + 8, " 200", 4) != 0;
    const char *sized = strcasestr(client->text, "\r\ncontent-length:");
    client->part = sized ? SIZED : CHUNK_SIZE;
    client->left = sized ? atoll(sized + 17) : 0;
    if (sized && client->left == 0) client->part = DONE;
    client->length = 0;
    return used;
}

static void read_size_digit(Client *client, char digit) {
    if (digit == '\n') {
        client->part = client->left ? CHUNK : TRAILER;
    } else if (digit != '\r') {
        client->left = client->left * 16 + (digit <= '9' ? digit - '0' : (digit | 32) - 'a' + 10);
    }
}

// Takes the framing of HTTP off, however the bytes were cut.
static void read_answer(Client *client, const char *bytes, size_t length, long long read_ns) {
    size_t at = 0;
    while (at < length && client->part != DONE) {
        size_t here = length - at;
        switch (client->part) {
        case HEAD: at += read_head(client, bytes + at, here); break;
        case CHUNK_SIZE: read_size_digit(client, bytes[at++]); break;
        case CHUNK_END:
            if (bytes[at++] == '\n') client->part = CHUNK_SIZE;
            break;
        case TRAILER: // no trailers are expected: the empty line ends the answer
            if (bytes[at++] == '\n') client->part = DONE;
            break;
        default:
            if ((long long)here > client->left) here = (size_t)client->left;
            read_payload(client, bytes + at, here, read_ns);
            at += here;
            client->left -= (long long)here;
            if (client->left == 0) client->part = client->part == SIZED ? DONE : CHUNK_END;
        }
    }
}

static void settle(Client *client) {
    if (client->bad_status) faults[FAULT_STATUS]++;
    else if (plan.tokens && client->tokens != plan.tokens) faults[FAULT_TOKENS]++;
    else if (plan.end && !client->ended) faults[FAULT_END]++;
    else answers++;
    stamps += client->tokens;
}

static void begin(Client *client) {
    if (send_request(client)) return;
    close(client->socket);
    if (dial(client) && send_request(client)) return;
    faults[FAULT_CONNECT]++;
    client->idle = true;
}

static void receive(Client *client) {
    static char bytes[READ_BYTES];
    ssize_t got = recv(client->socket, bytes, sizeof bytes, MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN) return;
    long long read_ns = now_ns();
    if (got <= 0) {
        if (!client->idle) faults[FAULT_CUT]++;
        close(client->socket);
        client->idle = true;
        if (read_ns < stop_ns && dial(client)) begin(client);
        return;
    }
    read_answer(client, bytes, (size_t)got, read_ns);
    if (client->part != DONE || client->idle) return;
    settle(client);
    if (now_ns() < stop_ns) begin(client);
    else client->idle = true;
}

static int busy(const Client *clients) {
    int count = 0;
    for (int i = 0; i < plan.streams; i++) count += !clients[i].idle;
    return count;
}

// Starts are spread so that the streams do not beat in step.
static void run(Client *clients) {
    long long start_ns = now_ns();
    stop_ns = start_ns + (long long)(plan.seconds * 1e9);
    int started = 0;
    for (int i = 0; i < plan.streams; i++) {
        clients[i].idle = true;
        clients[i].start_ns = start_ns + plan.spread_ms * 1000000LL * i / plan.streams;
    }
    while (started < plan.streams || busy(clients)) {
        struct epoll_event ready[256];
        long long now = now_ns();
        if (now > stop_ns + DRAIN_S * 1000000000LL) break;
        for (; started < plan.streams && clients[started].start_ns <= now; started++) {
            if (dial(&clients[started])) begin(&clients[started]);
            else faults[FAULT_CONNECT]++;
        }
        int many = epoll_wait(epoll, ready, 256, started < plan.streams ? 1 : 100);
        for (int i = 0; i < many; i++) receive(ready[i].data.ptr);
    }
    faults[FAULT_UNFINISHED] = busy(clients);
}

static int ascending(const void *one, const void *other) {
    float a = *(const float *)one, b = *(const float *)other;
    return (a > b) - (a < b);
}

static void print_samples(const char *name, Samples *samples) {
    qsort(samples->values, samples->count, sizeof *samples->values, ascending);
    printf("\"%s\":", name);
    if (!samples->count) {
        printf("null,");
        return;
    }
    size_t last = samples->count - 1;
    printf("{\"p50\":%.1f,\"p99\":%.1f,\"count\":%zu},", samples->values[last / 2],
           samples->values[last * 99 / 100], samples->count);
}

static void report(double seconds) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    printf("{\"answers\":%lld,\"tokens\":%lld,\"seconds\":%.3f,", answers, stamps, seconds);
    print_samples("first_token_us", &first_us);
    print_samples("travel_us", &travel_us);
    printf("\"cpu_s\":%.6f,\"failed\":{", (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
                                              (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6);
    const char *comma = "";
    for (int i = 0; i < FAULTS; i++) {
        if (!faults[i]) continue;
        printf("%s\"%s\":%lld", comma, FAULT_NAMES[i], faults[i]);
        comma = ",";
    }
    printf("}}\n");
}

static void write_request(const char *path, const char *headers, const char *body_file) {
    FILE *file = fopen(body_file, "rb");
    if (!file) {
        fprintf(stderr, "client: %s: %s\n", body_file, strerror(errno));
        exit(2);
    }
    char *body = malloc(1 << 20);
    size_t length = body ? fread(body, 1, 1 << 20, file) : 0;
    fclose(file);
    int head = asprintf(&plan.request,
                        "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\n%s"
                        "Content-Length: %zu\r\n\r\n", path, plan.port, headers, length);
    plan.request = head < 0 ? NULL : realloc(plan.request, (size_t)head + length);
    if (!plan.request) abort();
    memcpy(plan.request + head, body, length);
    plan.request_length = (size_t)head + length;
    free(body);
}

int main(int count, char **words) {
    static char headers[4096];
    const char *path = "/", *body = NULL;
    for (int i = 1; i + 1 < count; i += 2) {
        const char *name = words[i], *value = words[i + 1];
        if (!strcmp(name, "--port")) plan.port = atoi(value);
        else if (!strcmp(name, "--path")) path = value;
        else if (!strcmp(name, "--body")) body = value;
        else if (!strcmp(name, "--header")) strcat(strncat(headers, value, 1024), "\r\n");
        else if (!strcmp(name, "--streams")) plan.streams = atoi(value);
        else if (!strcmp(name, "--seconds")) plan.seconds = atof(value);
        else if (!strcmp(name, "--spread-ms")) plan.spread_ms = atoi(value);
        else if (!strcmp(name, "--tokens")) plan.tokens = atoi(value);
        else if (!strcmp(name, "--end")) plan.end = value;
        else body = NULL, i = count;
    }
    if (!body || !plan.port || plan.streams < 1) {
        fprintf(stderr, "usage: see the first lines of client.c\n");
        return 2;
    }
    struct rlimit files = {65536, 65536};
    setrlimit(RLIMIT_NOFILE, &files);
    write_request(path, headers, body);
    epoll = epoll_create1(0);
    Client *clients = calloc((size_t)plan.streams, sizeof *clients);
    if (!clients) abort();
    long long start_ns = now_ns();
    run(clients);
    report((double)(now_ns() - start_ns) / 1e9);
}
