/* Audio straight across, compiled: what relay/straight.py says, from one read of a socket to the send on the other.
 *
 * It reads the network, so bounds come first, and it knows as little as it can: whole text messages in one frame
 * each, of printable ASCII without escapes, that are the callee's or the agent's audio and nothing else. Whatever is
 * unusual in any way is left as it came, with all that is behind it, and the general codecs take it.
 *
 * Nothing here calls into Python between the read and the send, so that the buffers need no lock but the GIL.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>

typedef unsigned char byte;

typedef struct {
    const byte *at;
    size_t size;
} span;

enum {
    LONE_TEXT = 0x81, /* FIN, no extension bit, opcode 1: RFC 6455 section 5.2 */
    MASKED = 0x80,
    LENGTH_FOLLOWS = 126, /* in two bytes */
    MOST = 0xFFFF,        /* bytes of a message that is read or written here */
    HEAD = 8,             /* the most that stands before a message: length in two bytes, mask */
    READ = 65536,
    NOTHING = -1, /* a limit that no message keeps */
    DIGITS = 15, /* of a number that is skipped: none of these is out of anybody's range */
    KEYS = 1024,
};

static byte taken[READ], unmasked[MOST], last[MOST], made[2 * READ];
static byte keys[4 * KEYS];
static size_t keys_left;

/* ---- JSON, as far as it is needed: an object of strings, numbers and at most one object ------------------- */

typedef struct {
    const byte *at, *end;
} cursor;

/* A member that matters. Where `is_free`, its string is found in `value`; else it must be that very string. */
typedef struct {
    const char *name;
    int depth, is_free, is_needed, is_seen;
    span value;
} member;

static void skip_blanks(cursor *c) {
    while (c->at < c->end && (*c->at == ' ' || *c->at == '\t' || *c->at == '\n' || *c->at == '\r')) c->at++;
}

static int is_next(cursor *c, byte wanted) {
    skip_blanks(c);
    if (c->at == c->end || *c->at != wanted) return 0;
    c->at++;
    return 1;
}

/* Printable ASCII without an escape: nothing that could be written in another way. */
static int is_plain(span text) {
    for (size_t i = 0; i < text.size; i++)
        if (text.at[i] < ' ' || text.at[i] > '~' || text.at[i] == '"' || text.at[i] == '\\') return 0;
    return 1;
}

static int read_string(cursor *c, span *found) {
    if (!is_next(c, '"')) return 0;
    const byte *stop = memchr(c->at, '"', c->end - c->at);
    if (!stop) return 0;
    *found = (span){c->at, stop - c->at};
    c->at = stop + 1;
    return is_plain(*found);
}

static size_t skip_digits(cursor *c) {
    const byte *start = c->at;
    while (c->at < c->end && *c->at >= '0' && *c->at <= '9') c->at++;
    return c->at - start;
}

/* Without an exponent, and not so long that anybody could find it too large. */
static int skip_number(cursor *c) {
    if (c->at < c->end && *c->at == '-') c->at++;
    int is_zero = c->at < c->end && *c->at == '0';
    size_t whole = skip_digits(c), part = 1;
    if (c->at < c->end && *c->at == '.') c->at++, part = skip_digits(c);
    if (c->at < c->end && (*c->at == 'e' || *c->at == 'E')) return 0;
    return whole && part && whole <= DIGITS && part <= DIGITS && !(is_zero && whole > 1);
}

static int is_same(span one, const char *other, size_t size) {
    return one.size == size && !memcmp(one.at, other, size);
}

/* Whether this is an object in which every member that matters stands as it should, once. `nested` may be one too. */
static int read_object(cursor *c, member *members, size_t count, const char *nested, int depth) {
    span name, value;
    int was_nested = 0;
    if (!is_next(c, '{')) return 0;
    do {
        if (!read_string(c, &name) || !is_next(c, ':')) return 0;
        member *known = NULL;
        for (member *each = members; each < members + count; each++)
            if (each->depth == depth && is_same(name, each->name, strlen(each->name))) known = each;
        if (nested && depth == 0 && is_same(name, nested, strlen(nested))) {
            if (was_nested++ || !read_object(c, members, count, NULL, depth + 1)) return 0;
            continue;
        }
        cursor before = *c;
        if (read_string(c, &value)) {
            if (!known) continue;
            if (known->is_seen++ || !(known->is_free || is_same(value, (const char *)known->value.at, known->value.size)))
                return 0;
            if (known->is_free) known->value = value;
        } else {
            *c = before;
            skip_blanks(c);
            if (known || !skip_number(c)) return 0;
        }
    } while (is_next(c, ','));
    return is_next(c, '}');
}

static int read_message(span text, member *members, size_t count, const char *nested) {
    cursor c = {text.at, text.at + text.size};
    for (member *each = members; each < members + count; each++) each->is_seen = 0;
    if (!read_object(&c, members, count, nested, 0)) return 0;
    skip_blanks(&c);
    if (c.at != c.end) return 0;
    for (member *each = members; each < members + count; each++)
        if (each->is_needed && !each->is_seen) return 0;
    return 1;
}

/* ---- frames --------------------------------------------------------------------------------------------- */

static void apply_mask(byte *to, const byte *from, size_t size, const byte *key) {
    uint64_t wide, eight;
    memcpy(&wide, key, 4);
    memcpy((byte *)&wide + 4, key, 4);
    size_t at = 0;
    for (; at + 8 <= size; at += 8) {
        memcpy(&eight, from + at, 8);
        eight ^= wide;
        memcpy(to + at, &eight, 8);
    }
    for (; at < size; at++) to[at] = from[at] ^ key[at & 3];
}

/* How many bytes of `from` are one whole text message, which is then in `text`; 0 for anything else. */
static size_t read_frame(span from, int is_masked, size_t limit, span *text) {
    size_t body = 2;
    if (from.size < body || from.at[0] != LONE_TEXT) return 0;
    size_t size = from.at[1] ^ (is_masked ? MASKED : 0);
    if (size == LENGTH_FOLLOWS) {
        body = 4;
        if (from.size < body) return 0;
        size = (size_t)from.at[2] << 8 | from.at[3];
        if (size < LENGTH_FOLLOWS) return 0;
    } else if (size > LENGTH_FOLLOWS) {
        return 0;
    }
    if (is_masked) body += 4;
    if (size > limit || from.size < body || from.size - body < size) return 0;
    *text = (span){from.at + body, size};
    if (is_masked) {
        apply_mask(unmasked, from.at + body, size, from.at + body - 4); /* size <= limit <= MOST */
        text->at = unmasked;
    }
    return body + size;
}

/* Write the parts as one text message at `to`; the bytes that it takes, 0 where there is no room or no key. */
static size_t write_frame(byte *to, size_t room, int is_masked, const span *parts, size_t count) {
    size_t size = 0, at = 2;
    for (size_t i = 0; i < count; i++) size += parts[i].size; /* each is at most MOST */
    if (size > MOST || room < HEAD + size) return 0;
    to[0] = LONE_TEXT;
    to[1] = is_masked ? MASKED : 0;
    if (size < LENGTH_FOLLOWS) {
        to[1] |= size;
    } else {
        to[1] |= LENGTH_FOLLOWS;
        to[2] = size >> 8;
        to[3] = size & 0xFF;
        at = 4;
    }
    const byte *key = NULL;
    if (is_masked) {
        if (!keys_left) {
            if (getrandom(keys, sizeof keys, 0) != sizeof keys) return 0;
            keys_left = KEYS;
        }
        key = keys + 4 * --keys_left; /* each is used once */
        memcpy(to + at, key, 4);
        at += 4;
    }
    byte *body = to + at;
    for (size_t i = 0; i < count; i++) {
        memcpy(to + at, parts[i].at, parts[i].size);
        at += parts[i].size;
    }
    if (is_masked) apply_mask(body, body, size, key);
    return at;
}

/* ---- both ways ------------------------------------------------------------------------------------------ */

#define TEXT(literal) {(const byte *)(literal), sizeof(literal) - 1}

typedef struct {
    member *members; /* the first is the payload */
    size_t count;
    const char *nested;
    int from_phone;
    size_t room;     /* octets of audio at most */
    span head, tail; /* around the payload in what is written */
    span middle;     /* behind the head: the stream's sid, or nothing */
    span lead;       /* and before the payload */
} way;

static size_t count_octets(span payload) {
    while (payload.size && payload.at[payload.size - 1] == '=') payload.size--;
    return payload.size * 6 / 8;
}

/* What relay.straight.Crossed says. */
static PyObject *cross(PyObject *source, long sink, long limit, const way *going) {
    Py_buffer view = {0};
    span from;
    if (PyLong_Check(source)) {
        long descriptor = PyLong_AsLong(source);
        if (descriptor == -1 && PyErr_Occurred()) return NULL;
        ssize_t got = recv((int)descriptor, taken, sizeof taken, 0);
        if (got < 0) {
            if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)
                return Py_BuildValue("(iisOOi)", 0, 0, "", Py_None, Py_None, 0);
            return PyErr_SetFromErrno(PyExc_OSError);
        }
        from = (span){taken, (size_t)got};
    } else {
        if (PyObject_GetBuffer(source, &view, PyBUF_SIMPLE) < 0) return NULL;
        from = (span){view.buf, (size_t)view.len};
    }
    size_t frames = 0, octets = 0, filled = 0, used, written;
    size_t most = limit < 0 ? 0 : limit > MOST ? MOST : (size_t)limit;
    span rest = from, text, payload = {last, 0};
    while ((used = read_frame(rest, going->from_phone, most, &text))) {
        if (!read_message(text, going->members, going->count, going->nested)) break;
        span found = going->members[0].value;
        size_t more = octets + count_octets(found);
        if (more > going->room) break;
        span parts[] = {going->head, going->middle, going->lead, found, going->tail};
        written = write_frame(made + filled, sizeof made - filled, going->from_phone, parts, 5);
        if (!written) break;
        payload = (span){last, found.size};
        memcpy(last, found.at, found.size); /* of a message, so at most MOST; the next one overwrites it */
        filled += written;
        octets = more;
        frames++;
        rest = (span){rest.at + used, rest.size - used};
    }
    ssize_t sent = 0;
    if (filled && sink >= 0) sent = send((int)sink, made, filled, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0) sent = 0; /* whoever sends it again hears why */
    PyObject *left = NULL, *out = NULL, *crossed = NULL;
    left = frames && !rest.size ? Py_NewRef(Py_None) : PyBytes_FromStringAndSize((const char *)rest.at, rest.size);
    out = (size_t)sent == filled ? Py_NewRef(Py_None) : PyBytes_FromStringAndSize((const char *)made, filled);
    if (left && out)
        crossed = Py_BuildValue("(nns#OOn)", (Py_ssize_t)frames, (Py_ssize_t)octets, payload.at, (Py_ssize_t)payload.size,
                                left, out, (Py_ssize_t)sent);
    Py_XDECREF(left);
    Py_XDECREF(out);
    if (view.obj) PyBuffer_Release(&view);
    return crossed;
}

/* A word from Python. Others than plain ones are in no message that is read here, and cannot be written as they are. */
static int read_word(PyObject *word, span *found) {
    Py_ssize_t size;
    const char *text = PyUnicode_AsUTF8AndSize(word, &size);
    if (!text) {
        PyErr_Clear(); /* half a character of UTF-16 */
        return 0;
    }
    *found = (span){(const byte *)text, (size_t)size};
    return found->size < MOST && is_plain(*found);
}

static PyObject *forward(PyObject *self, PyObject *const *arguments, Py_ssize_t count) {
    span sid = {0};
    if (count != 4) return PyErr_Format(PyExc_TypeError, "forward takes source, sink, stream_sid and limit");
    long sink = PyLong_AsLong(arguments[1]), limit = PyLong_AsLong(arguments[3]);
    if (PyErr_Occurred()) return NULL;
    if (!read_word(arguments[2], &sid)) limit = NOTHING;
    member members[] = {
        {.name = "payload", .depth = 1, .is_free = 1, .is_needed = 1},
        {.name = "event", .is_needed = 1, .value = TEXT("media")},
        {.name = "streamSid", .is_needed = 1, .value = sid},
        {.name = "track", .depth = 1, .value = TEXT("inbound")},
    };
    way going = {
        .members = members,
        .count = 4,
        .nested = "media",
        .from_phone = 1,
        .room = SIZE_MAX,
        .head = TEXT("{\"type\":\"input.audio\",\"audio\":\""),
        .middle = TEXT(""),
        .lead = TEXT(""),
        .tail = TEXT("\"}"),
    };
    return cross(arguments[0], sink, limit, &going);
}

static PyObject *play(PyObject *self, PyObject *const *arguments, Py_ssize_t count) {
    span reply_id = {0}, sid = {0};
    if (count != 6)
        return PyErr_Format(PyExc_TypeError, "play takes source, sink, reply_id, stream_sid, room and limit");
    long sink = PyLong_AsLong(arguments[1]), limit = PyLong_AsLong(arguments[5]);
    long room = PyLong_AsLong(arguments[4]);
    if (PyErr_Occurred()) return NULL;
    if (room < 0 || !read_word(arguments[2], &reply_id) || !read_word(arguments[3], &sid)) limit = NOTHING;
    member members[] = {
        {.name = "data", .is_free = 1, .is_needed = 1},
        {.name = "type", .is_needed = 1, .value = TEXT("reply.audio")},
        {.name = "reply_id", .is_needed = 1, .value = reply_id},
    };
    way going = {
        .members = members,
        .count = 3,
        .room = (size_t)room,
        .head = TEXT("{\"event\":\"media\",\"streamSid\":\""),
        .middle = sid,
        .lead = TEXT("\",\"media\":{\"payload\":\""),
        .tail = TEXT("\"}}"),
    };
    return cross(arguments[0], sink, limit, &going);
}

static PyMethodDef methods[] = {
    {"forward", (PyCFunction)(void (*)(void))forward, METH_FASTCALL, "relay.straight.Forward"},
    {"play", (PyCFunction)(void (*)(void))play, METH_FASTCALL, "relay.straight.Play"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "relay._straight",
    .m_doc = "Audio straight across, compiled; see relay.straight.",
    .m_size = -1, /* one interpreter: the buffers are its own */
    .m_methods = methods,
};

PyMODINIT_FUNC PyInit__straight(void) { return PyModule_Create(&module); }
