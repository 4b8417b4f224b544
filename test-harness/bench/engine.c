// A llama.cpp server that needs no time: the upstream of the bench. One thread, loopback only.
//
//   engine PORT...     each port is a replica of its own
//
// It speaks what the llama.cpp adapter and the peers ask for: /health, /props, /v1/models, /slots, /completion and
// /v1/chat/completions, streamed (chunked, one HTTP chunk per event) or whole. How it answers is set over HTTP:
//
//   GET /_set?tokens=64&interval_us=15000    0 us: the whole stream in one write (a burst)
//   GET /_use                                what it did and the CPU time it took
//
// The text of every paced token is "t=" and the 19 digits of the monotonic clock at its write, so that whoever
// reads it on the same host knows how long it travelled.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
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

enum { CHAT, COMPLETION, SHAPES };
enum { MAX_TOKENS = 4096, MAX_PORTS = 16, READ_BYTES = 65536 };
static const char STAMP[] = "t=0000000000000000000 ";
static const char STREAM_HEAD[] =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nServer: llama.cpp\r\nTransfer-Encoding: chunked\r\n\r\n";

typedef struct {
    char *bytes;
    size_t length, capacity, sent;
} Buffer;

typedef struct Connection {
    int socket;
    Buffer in, out;
    bool listening, streaming, wants_write;
    int shape, tokens_sent;
    long long due_ns;
    struct Connection *later; // next in the order of due_ns
} Connection;

// Every stream has the same pace, so the order in which events fall due is the order in which they were planned.
static Connection *first_due, *last_due;
static int epoll, tokens = 64;
static long long interval_ns, requests, events;
static Buffer event[SHAPES], opening[SHAPES], ending[SHAPES], burst[SHAPES];
static size_t stamp_at[SHAPES];

static long long now_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static void append(Buffer *to, const void *bytes, size_t length) {
    if (to->length + length > to->capacity) {
        to->capacity = (to->length + length) * 2;
        to->bytes = realloc(to->bytes, to->capacity);
        if (!to->bytes) abort();
    }
    memcpy(to->bytes + to->length, bytes, length);
    to->length += length;
}

static void append_chunk(Buffer *to, const char *text) {
    char head[16];
    append(to, head, (size_t)snprintf(head, sizeof head, "%zx\r\n", strlen(text)));
    append(to, text, strlen(text));
    append(to, "\r\n", 2);
}

static void chat_event(char *out, size_t size, const char *delta, const char *finish) {
    snprintf(out, size,
             "data: {\"choices\":[{\"finish_reason\":%s,\"index\":0,\"delta\":{%s}}],\"created\":1700000000,"
             "\"id\":\"chatcmpl-0123456789abcdef0123456789abcdef\",\"model\":\"bench\","
             "\"system_fingerprint\":\"b1-bench\",\"object\":\"chat.completion.chunk\"}\n\n",
             finish, delta);
}

static void write_chat_stream(void) {
    char text[1024], delta[128];
    chat_event(text, sizeof text, "\"role\":\"assistant\",\"content\":null", "null");
    append_chunk(&opening[CHAT], text);
    snprintf(delta, sizeof delta, "\"content\":\"%s\"", STAMP);
    chat_event(text, sizeof text, delta, "null");
    append_chunk(&event[CHAT], text);
    chat_event(text, sizeof text, "", "\"length\"");
    append_chunk(&ending[CHAT], text);
    snprintf(text, sizeof text,
             "data: {\"choices\":[],\"created\":1700000000,\"id\":\"chatcmpl-0123456789abcdef0123456789abcdef\","
             "\"model\":\"bench\",\"system_fingerprint\":\"b1-bench\",\"object\":\"chat.completion.chunk\","
             "\"usage\":{\"completion_tokens\":%d,\"prompt_tokens\":8,\"total_tokens\":%d,"
             "\"prompt_tokens_details\":{\"cached_tokens\":0}}}\n\n", tokens, tokens + 8);
    append_chunk(&ending[CHAT], text);
    append_chunk(&ending[CHAT], "data: [DONE]\n\n");
    append(&ending[CHAT], "0\r\n\r\n", 5);
}

static void write_completion_stream(void) {
    char text[1024];
    snprintf(text, sizeof text,
             "data: {\"index\":0,\"content\":\"%s\",\"tokens\":[7],\"stop\":false,\"id_slot\":-1,"
             "\"tokens_predicted\":%d,\"tokens_evaluated\":8}\n\n", STAMP, tokens);
    append_chunk(&event[COMPLETION], text);
    snprintf(text, sizeof text,
             "data: {\"index\":0,\"content\":\"\",\"tokens\":[],\"id_slot\":0,\"stop\":true,\"model\":\"bench\","
             "\"tokens_predicted\":%d,\"tokens_evaluated\":8,\"truncated\":false,\"stop_type\":\"limit\","
             "\"stopping_word\":\"\",\"tokens_cached\":0,\"timings\":{\"cache_n\":0,\"prompt_n\":8,\"predicted_n\":%d}}\n\n",
             tokens, tokens);
    append_chunk(&ending[COMPLETION], text);
    append(&ending[COMPLETION], "0\r\n\r\n", 5);
}

// Everything that is the same in every answer is written once per setting.
static void prepare(void) {
    for (int shape = 0; shape < SHAPES; shape++)
        event[shape].length = opening[shape].length = ending[shape].length = burst[shape].length = 0;
    write_chat_stream();
    write_completion_stream();
    for (int shape = 0; shape < SHAPES; shape++) {
        char *stamp = memmem(event[shape].bytes, event[shape].length, STAMP, sizeof STAMP - 1);
        stamp_at[shape] = (size_t)(stamp - event[shape].bytes) + 2;
        append(&burst[shape], STREAM_HEAD, sizeof STREAM_HEAD - 1);
        append(&burst[shape], opening[shape].bytes, opening[shape].length);
        for (int i = 0; i < tokens; i++) append(&burst[shape], event[shape].bytes, event[shape].length);
        append(&burst[shape], ending[shape].bytes, ending[shape].length);
    }
}

static void watch(Connection *connection, bool writes, int how) {
    struct epoll_event wanted = {.events = EPOLLIN | EPOLLRDHUP | (writes ? EPOLLOUT : 0), .data.ptr = connection};
    epoll_ctl(epoll, how, connection->socket, &wanted);
    connection->wants_write = writes;
}

// Sends what is buffered; false when the connection is gone.
static bool flush(Connection *connection) {
    Buffer *out = &connection->out;
    while (out->sent < out->length) {
        ssize_t sent = send(connection->socket, out->bytes + out->sent, out->length - out->sent, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN) return false;
        if (sent < 0) {
            if (!connection->wants_write) watch(connection, true, EPOLL_CTL_MOD);
            return true;
        }
        out->sent += (size_t)sent;
    }
    out->length = out->sent = 0;
    if (connection->wants_write) watch(connection, false, EPOLL_CTL_MOD);
    return true;
}

static void plan(Connection *connection, long long due_ns) {
    connection->due_ns = due_ns;
    connection->later = NULL;
    if (last_due) last_due->later = connection;
    else first_due = connection;
    last_due = connection;
}

static void unplan(Connection *gone) {
    Connection *before = NULL;
    for (Connection *one = first_due; one; before = one, one = one->later) {
        if (one != gone) continue;
        if (before) before->later = gone->later;
        else first_due = gone->later;
        if (last_due == gone) last_due = before;
        return;
    }
}

static void drop(Connection *connection) {
    if (connection->streaming) unplan(connection);
    close(connection->socket);
    free(connection->in.bytes);
    free(connection->out.bytes);
    free(connection);
}

static bool answer(Connection *connection, const char *body) {
    char head[160];
    append(&connection->out, head,
           (size_t)snprintf(head, sizeof head,
                            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nServer: llama.cpp\r\n"
                            "Content-Length: %zu\r\n\r\n", strlen(body)));
    append(&connection->out, body, strlen(body));
    return flush(connection);
}

// Sends the one token that is due and plans the next.
static bool send_due(Connection *connection) {
    Buffer *out = &connection->out;
    if (connection->tokens_sent == 0) {
        append(out, STREAM_HEAD, sizeof STREAM_HEAD - 1);
        append(out, opening[connection->shape].bytes, opening[connection->shape].length);
    }
    size_t start = out->length;
    append(out, event[connection->shape].bytes, event[connection->shape].length);
    char *digits = out->bytes + start + stamp_at[connection->shape];
    long long stamp = now_ns();
    for (int i = 18; i >= 0; i--, stamp /= 10) digits[i] = (char)('0' + stamp % 10);
    events++;
    if (++connection->tokens_sent < tokens) {
        plan(connection, connection->due_ns + interval_ns);
        return flush(connection);
    }
    connection->streaming = false;
    append(out, ending[connection->shape].bytes, ending[connection->shape].length);
    return flush(connection);
}

static bool answer_whole(Connection *connection, int shape) {
    static char body[MAX_TOKENS * sizeof STAMP + 1024], text[MAX_TOKENS * sizeof STAMP];
    text[0] = 0;
    for (int i = 0; i < tokens; i++) memcpy(text + (size_t)i * (sizeof STAMP - 1), STAMP, sizeof STAMP);
    if (shape == CHAT)
        snprintf(body, sizeof body,
                 "{\"choices\":[{\"finish_reason\":\"length\",\"index\":0,\"message\":{\"role\":\"assistant\","
                 "\"content\":\"%s\"}}],\"created\":1700000000,\"model\":\"bench\",\"object\":\"chat.completion\","
                 "\"id\":\"chatcmpl-0123456789abcdef0123456789abcdef\",\"usage\":{\"completion_tokens\":%d,"
                 "\"prompt_tokens\":8,\"total_tokens\":%d}}", text, tokens, tokens + 8);
    else
        snprintf(body, sizeof body,
                 "{\"index\":0,\"content\":\"%s\",\"stop\":true,\"model\":\"bench\",\"tokens_predicted\":%d,"
                 "\"tokens_evaluated\":8,\"stop_type\":\"limit\"}", text, tokens);
    return answer(connection, body);
}

static bool decode(Connection *connection, int shape, const char *body, size_t length) {
    requests++;
    if (!memmem(body, length, "\"stream\":true", 13) && !memmem(body, length, "\"stream\": true", 14))
        return answer_whole(connection, shape);
    if (interval_ns == 0) {
        events += tokens;
        append(&connection->out, burst[shape].bytes, burst[shape].length);
        return flush(connection);
    }
    connection->streaming = true;
    connection->shape = shape;
    connection->tokens_sent = 0;
    plan(connection, now_ns() + interval_ns);
    return true;
}

static long long argument(const char *target, const char *name, long long otherwise) {
    const char *found = strstr(target, name);
    return found ? atoll(found + strlen(name)) : otherwise;
}

static bool set(Connection *connection, const char *target) {
    long long wanted = argument(target, "tokens=", tokens);
    tokens = (int)(wanted < 1 ? 1 : wanted > MAX_TOKENS ? MAX_TOKENS : wanted);
    interval_ns = argument(target, "interval_us=", interval_ns / 1000) * 1000;
    prepare();
    return answer(connection, "{}");
}

static bool use(Connection *connection) {
    char body[160];
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    double cpu_s = (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
                   (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
    snprintf(body, sizeof body, "{\"requests\":%lld,\"events\":%lld,\"cpu_s\":%.6f}", requests, events, cpu_s);
    return answer(connection, body);
}

static bool get(Connection *connection, const char *target) {
    if (!strncmp(target, "/_set", 5)) return set(connection, target);
    if (!strncmp(target, "/_use", 5)) return use(connection);
    if (!strncmp(target, "/props", 6))
        return answer(connection, "{\"total_slots\":1024,\"model_alias\":\"bench\",\"build_info\":\"b1-bench\","
                                  "\"model_path\":\"bench.gguf\",\"chat_template\":\"\","
                                  "\"default_generation_settings\":{\"n_ctx\":8192}}");
    if (!strncmp(target, "/v1/models", 10))
        return answer(connection, "{\"object\":\"list\",\"data\":[{\"id\":\"bench\",\"object\":\"model\","
                                  "\"created\":1700000000,\"owned_by\":\"bench\"}]}");
    if (!strncmp(target, "/slots", 6)) return answer(connection, "[]");
    return answer(connection, "{\"status\":\"ok\"}"); // /health, and what else the peers poll
}

// Answers the requests that are complete; false when the connection is to be closed.
static bool serve(Connection *connection) {
    Buffer *in = &connection->in;
    while (!connection->streaming) {
        append(in, "", 1); // so that the head is a string
        in->length--;
        char *end = memmem(in->bytes, in->length, "\r\n\r\n", 4);
        if (!end) return true;
        size_t head = (size_t)(end - in->bytes) + 4, body = 0;
        const char *length = strcasestr(in->bytes, "\r\ncontent-length:");
        if (length && length < end) body = (size_t)atoll(length + 17);
        if (in->length < head + body) return true;
        char *target = strchr(in->bytes, ' ');
        if (!target) return false;
        target++;
        bool kept;
        if (!strncmp(in->bytes, "GET ", 4)) {
            char *stop = strchr(target, ' ');
            if (stop) *stop = 0;
            kept = get(connection, target);
        } else if (!strncmp(target, "/v1/chat/completions", 20)) {
            kept = decode(connection, CHAT, in->bytes + head, body);
        } else {
            kept = decode(connection, COMPLETION, in->bytes + head, body);
        }
        if (!kept) return false;
        memmove(in->bytes, in->bytes + head + body, in->length - head - body);
        in->length -= head + body;
    }
    return true;
}

static bool receive(Connection *connection) {
    static char bytes[READ_BYTES];
    for (;;) {
        ssize_t got = recv(connection->socket, bytes, sizeof bytes, 0);
        if (got == 0) return false;
        if (got < 0) return errno == EAGAIN;
        append(&connection->in, bytes, (size_t)got);
        if (!serve(connection)) return false;
        if ((size_t)got < sizeof bytes) return true;
    }
}

static void accept_all(int listener) {
    int socket, on = 1;
    while ((socket = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        Connection *connection = calloc(1, sizeof *connection);
        if (!connection) abort();
        connection->socket = socket;
        watch(connection, false, EPOLL_CTL_ADD);
    }
}

static void listen_on(int port) {
    int on = 1;
    Connection *listener = calloc(1, sizeof *listener);
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (!listener) abort();
    listener->listening = true;
    listener->socket = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(listener->socket, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener->socket, (struct sockaddr *)&address, sizeof address) || listen(listener->socket, 4096)) {
        fprintf(stderr, "engine: port %d: %s\n", port, strerror(errno));
        exit(1);
    }
    watch(listener, false, EPOLL_CTL_ADD);
}

static void send_all_due(void) {
    long long now = now_ns();
    while (first_due && first_due->due_ns <= now) {
        Connection *connection = first_due;
        first_due = connection->later;
        if (!first_due) last_due = NULL;
        bool planned_again = connection->tokens_sent + 1 < tokens;
        if (!send_due(connection) || (!planned_again && !serve(connection))) drop(connection);
    }
}

static int wait_for_events(struct epoll_event *ready, int most) {
    if (!first_due) return epoll_wait(epoll, ready, most, -1);
    long long left = first_due->due_ns - now_ns();
    if (left < 0) left = 0;
    struct timespec timeout = {.tv_sec = left / 1000000000LL, .tv_nsec = left % 1000000000LL};
    return epoll_pwait2(epoll, ready, most, &timeout, NULL);
}

int main(int count, char **words) {
    if (count < 2 || count > MAX_PORTS) {
        fprintf(stderr, "usage: engine PORT...\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    struct rlimit files = {65536, 65536};
    setrlimit(RLIMIT_NOFILE, &files);
    epoll = epoll_create1(0);
    prepare();
    for (int i = 1; i < count; i++) listen_on(atoi(words[i]));
    for (;;) {
        struct epoll_event ready[256];
        int many = wait_for_events(ready, 256);
        for (int i = 0; i < many; i++) {
            Connection *connection = ready[i].data.ptr;
            if (connection->listening) accept_all(connection->socket);
            else if (((ready[i].events & EPOLLOUT) && !flush(connection)) ||
                     ((ready[i].events & ~(unsigned)EPOLLOUT) && !receive(connection)))
                drop(connection);
        }
        send_all_due();
    }
}
