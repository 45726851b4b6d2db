#include "vmm/gdb/packet.h"

#include <stdarg.h>
#include <stdio.h>

enum { ESCAPE = '}', ESCAPE_XOR = 0x20, INTERRUPT = 3 };

static void put(struct gdb_input *in, uint8_t c)
{
    if (in->n < GDB_PACKET_MAX)
        in->payload[in->n++] = (char)c;
    else
        in->bad = true;
}

static enum gdb_token outside(struct gdb_input *in, uint8_t c)
{
    switch (c) {
    case '$':
        in->state = GDB_INSIDE;
        in->n = 0;
        in->sum = 0;
        in->bad = false;
        return GDB_MORE;
    case '+':
        return GDB_ACK;
    case '-':
        return GDB_NACK;
    case INTERRUPT:
        return GDB_INTERRUPT;
    default:
        return GDB_MORE;
    }
}

enum gdb_token gdb_input_byte(struct gdb_input *in, uint8_t c)
{
    int digit = gdb_digit((char)c);

    switch (in->state) {
    case GDB_OUTSIDE:
        return outside(in, c);
    case GDB_INSIDE:
        if (c == '#') {
            in->state = GDB_SUM_HIGH;
            return GDB_MORE;
        }
        in->sum = (uint8_t)(in->sum + c);
        if (c == ESCAPE)
            in->state = GDB_ESCAPED;
        else
            put(in, c);
        return GDB_MORE;
    case GDB_ESCAPED:
        in->state = GDB_INSIDE;
        in->sum = (uint8_t)(in->sum + c);
        put(in, c ^ ESCAPE_XOR);
        return GDB_MORE;
    case GDB_SUM_HIGH:
        in->state = GDB_SUM_LOW;
        in->bad |= digit < 0;
        in->sent = (uint8_t)((unsigned)digit << 4);
        return GDB_MORE;
    case GDB_SUM_LOW:
        in->state = GDB_OUTSIDE;
        in->payload[in->n] = 0;
        in->bad |= digit < 0 || (in->sent | (unsigned)digit) != in->sum;
        return in->bad ? GDB_BAD_PACKET : GDB_PACKET;
    }
    return GDB_MORE;
}

void gdb_reply_bytes(struct gdb_reply *r, const void *bytes, size_t n)
{
    if (n > sizeof(r->payload) - r->n) {
        r->overflow = true;
        return;
    }
    memcpy(r->payload + r->n, bytes, n);
    r->n += n;
}

void gdb_reply_hex(struct gdb_reply *r, const void *bytes, size_t n)
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < n; i++) {
        uint8_t b = ((const uint8_t *)bytes)[i];

        gdb_reply_bytes(r, &digits[b >> 4], 1);
        gdb_reply_bytes(r, &digits[b & 15], 1);
    }
}

void gdb_reply_text(struct gdb_reply *r, const char *fmt, ...)
{
    char text[256];
    va_list args;
    int n;

    va_start(args, fmt);
    n = vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    assert(n >= 0 && (size_t)n < sizeof(text));
    gdb_reply_bytes(r, text, (size_t)n);
}

size_t gdb_frame(const struct gdb_reply *r, char *ret)
{
    static const char too_long[] = "E07"; /* E2BIG */
    const char *payload = r->overflow ? too_long : r->payload;
    size_t len = r->overflow ? sizeof(too_long) - 1 : r->n, n = 0;
    uint8_t sum = 0;

    ret[n++] = '$';
    for (size_t i = 0; i < len; i++) {
        char c = payload[i];

        if (c == '$' || c == '#' || c == '}' || c == '*') {
            ret[n++] = ESCAPE;
            sum = (uint8_t)(sum + ESCAPE);
            c ^= ESCAPE_XOR;
        }
        ret[n++] = c;
        sum = (uint8_t)(sum + (uint8_t)c);
    }
    snprintf(ret + n, 4, "#%02x", sum);
    return n + 3;
}

int gdb_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

bool gdb_unhex(const char *text, size_t len, void *ret, size_t n)
{
    if (len != 2 * n)
        return false;
    for (size_t i = 0; i < n; i++) {
        int high = gdb_digit(text[2 * i]), low = gdb_digit(text[2 * i + 1]);

        if (high < 0 || low < 0)
            return false;
        ((uint8_t *)ret)[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}
