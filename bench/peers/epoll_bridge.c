/* The practical limit: one thread, one epoll, no JSON parser, no queue, no allocation per frame.
 *
 * It knows exactly the messages of the bench, checks next to nothing, and drops a call where production code would
 * have to wait. What it costs is what the kernel costs.
 *
 * usage: PORT=8080 AGENT_PORT=9000 epoll_bridge
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BUFFER = 65536, EVENTS = 256, SID = 64 };

typedef struct leg {
    int fd;
    int is_agent;
    int is_upgraded;
    struct leg *other;
    char sid[SID]; /* of the phone's stream */
    size_t filled;
    unsigned char in[BUFFER];
} leg;

static int poller;
static struct sockaddr_in agent_address;
static const char UPDATE[] =
    "{\"type\":\"session.update\",\"session\":{\"input\":{\"format\":{\"encoding\":\"audio/pcmu\"}}}}";

static void hang_up(leg *one) {
    leg *both[] = {one, one->other};
    for (int i = 0; i < 2; i++)
        if (both[i] && both[i]->fd >= 0) {
            close(both[i]->fd);
            both[i]->fd = -1; /* the memory stays: events of this round may still name it */
        }
}

static void put(leg *to, const void *bytes, size_t size) {
    if (to->fd >= 0 && send(to->fd, bytes, size, MSG_NOSIGNAL) != (ssize_t)size) hang_up(to);
}

/* One message, masked where it goes to the agent. */
static void send_frame(leg *to, int opcode, const char *head, size_t head_size, const unsigned char *body,
                       size_t body_size, const char *tail) {
    static unsigned char out[BUFFER + 512];
    static uint32_t random_state = 2463534242u;
    size_t tail_size = strlen(tail), size = head_size + body_size + tail_size, at = 2;
    out[0] = 0x80 | opcode;
    if (size < 126) {
        out[1] = size;
    } else {
        out[1] = 126;
        out[2] = size >> 8;
        out[3] = size & 255;
        at = 4;
    }
    unsigned char *key = out + at;
    if (to->is_agent) {
        out[1] |= 0x80;
        random_state ^= random_state << 13, random_state ^= random_state >> 17, random_state ^= random_state << 5;
        memcpy(key, &random_state, 4);
        at += 4;
    }
    memcpy(out + at, head, head_size);
    memcpy(out + at + head_size, body, body_size);
    memcpy(out + at + head_size + body_size, tail, tail_size);
    if (to->is_agent)
        for (size_t i = 0; i < size; i++) out[at + i] ^= key[i & 3];
    put(to, out, at + size);
}

/* The string behind a key: its start, and its size in `size`; NULL where there is none. */
static unsigned char *value_of(unsigned char *text, size_t text_size, const char *key, size_t *size) {
    unsigned char *at = memmem(text, text_size, key, strlen(key));
    if (!at) return NULL;
    at = memchr(at + strlen(key), '"', text + text_size - at - strlen(key));
    if (!at++) return NULL;
    unsigned char *end = memchr(at, '"', text + text_size - at);
    if (!end) return NULL;
    *size = end - at;
    return at;
}

static void read_message(leg *from, unsigned char *text, size_t text_size) {
    size_t size;
    unsigned char *value;
    char head[SID + 64];
    if (from->is_agent) {
        if (!(value = value_of(text, text_size, "\"data\"", &size))) return;
        int head_size = snprintf(head, sizeof head, "{\"event\":\"media\",\"streamSid\":\"%s\",\"media\":{\"payload\":\"",
                                 from->other->sid);
        send_frame(from->other, 1, head, head_size, value, size, "\"}}");
    } else if (!from->sid[0]) {
        if (!(value = value_of(text, text_size, "\"streamSid\"", &size)) || size >= SID) return;
        memcpy(from->sid, value, size);
    } else if ((value = value_of(text, text_size, "\"payload\"", &size)) && from->other->is_upgraded) {
        static const char start[] = "{\"type\":\"input.audio\",\"audio\":\"";
        send_frame(from->other, 1, start, sizeof start - 1, value, size, "\"}");
    }
}

/* Frames that are complete; what is left moves to the front. */
static void read_frames(leg *from) {
    size_t at = 0;
    while (from->fd >= 0 && from->filled - at >= 2) {
        unsigned char *frame = from->in + at;
        size_t size = frame[1] & 127, head = 2 + (frame[1] & 128 ? 4 : 0);
        if (size == 126) {
            if (from->filled - at < 4) break;
            size = frame[2] << 8 | frame[3];
            head += 2;
        } else if (size == 127) {
            hang_up(from);
            return;
        }
        if (from->filled - at < head + size) break;
        if (frame[1] & 128)
            for (size_t i = 0; i < size; i++) frame[head + i] ^= frame[head - 4 + (i & 3)];
        if ((frame[0] & 15) == 1) read_message(from, frame + head, size);
        if ((frame[0] & 15) == 8) hang_up(from);
        if ((frame[0] & 15) == 9) send_frame(from, 10, "", 0, frame + head, size, "");
        at += head + size;
    }
    memmove(from->in, from->in + at, from->filled - at);
    from->filled -= at;
}

static leg *watch(int fd, int is_agent) {
    leg *made = calloc(1, sizeof *made);
    int one = 1;
    if (!made) exit(1);
    made->fd = fd;
    made->is_agent = is_agent;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    epoll_ctl(poller, EPOLL_CTL_ADD, fd, &(struct epoll_event){.events = EPOLLIN, .data.ptr = made});
    return made;
}

static void dial_agent(leg *phone) {
    static const char request[] =
        "GET /v1/ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: cmVsYXktYmVuY2gta2V5IQ==\r\nSec-WebSocket-Version: 13\r\n"
        "Authorization: Bearer bench\r\n\r\n";
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&agent_address, sizeof agent_address)) {
        hang_up(phone);
        return;
    }
    leg *agent = watch(fd, 1);
    agent->other = phone;
    phone->other = agent;
    put(agent, request, sizeof request - 1);
}

static void upgrade(leg *one) {
    unsigned char *end = memmem(one->in, one->filled, "\r\n\r\n", 4);
    if (!end) return;
    size_t head = end + 4 - one->in;
    if (!one->is_agent) {
        /* The key is not hashed: the carriers of the bench do not check, and no frame would be faster. */
        static const char answer[] =
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
        put(one, answer, sizeof answer - 1);
        dial_agent(one);
    } else {
        send_frame(one, 1, UPDATE, sizeof UPDATE - 1, (unsigned char *)"", 0, "");
    }
    one->is_upgraded = 1;
    memmove(one->in, one->in + head, one->filled - head);
    one->filled -= head;
    read_frames(one);
}

int main(void) {
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    agent_address = own;
    own.sin_port = htons(atoi(getenv("PORT")));
    agent_address.sin_port = htons(atoi(getenv("AGENT_PORT")));
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&own, sizeof own) || listen(listener, 512)) return 1;
    poller = epoll_create1(0);
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &(struct epoll_event){.events = EPOLLIN, .data.ptr = NULL});
    for (;;) {
        struct epoll_event events[EVENTS];
        int ready = epoll_wait(poller, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            leg *from = events[i].data.ptr;
            if (!from) {
                int fd = accept(listener, NULL, NULL);
                if (fd >= 0) watch(fd, 0);
                continue;
            }
            if (from->fd < 0) continue;
            ssize_t got = recv(from->fd, from->in + from->filled, BUFFER - 1 - from->filled, 0);
            if (got <= 0) {
                if (got == 0 || errno != EAGAIN) hang_up(from);
                continue;
            }
            from->filled += got;
            if (from->is_upgraded)
                read_frames(from);
            else
                upgrade(from);
        }
    }
}
