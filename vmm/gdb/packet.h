/*
 * The frames of gdb's remote protocol [gdb manual, appendix E.1]: $PAYLOAD#CHECKSUM, acknowledged by + or -.  Pure:
 * bytes in, tokens out; a frame that is longer than GDB_PACKET_MAX is read to its end and refused.
 */
#pragma once
#include "vmm/base/base.h"

enum { GDB_PACKET_MAX = 16 << 10 };

struct gdb_input {
    enum { GDB_OUTSIDE, GDB_INSIDE, GDB_ESCAPED, GDB_SUM_HIGH, GDB_SUM_LOW } state;
    uint8_t sum, sent; /* of what came; what the sender says it is */
    bool bad;          /* too long, or the sum is no number */
    size_t n;
    char payload[GDB_PACKET_MAX + 1]; /* unescaped, and ends with a zero when it is whole */
};

enum gdb_token {
    GDB_MORE, /* nothing yet */
    GDB_PACKET,
    GDB_BAD_PACKET,
    GDB_ACK,
    GDB_NACK,
    GDB_INTERRUPT
};
enum gdb_token gdb_input_byte(struct gdb_input *in, uint8_t c);

/* What is said in answer.  What does not fit is dropped, and the answer becomes an error. */
struct gdb_reply {
    size_t n;
    bool overflow;
    char payload[GDB_PACKET_MAX];
};
void gdb_reply_bytes(struct gdb_reply *r, const void *bytes, size_t n);
void gdb_reply_hex(struct gdb_reply *r, const void *bytes, size_t n);
void gdb_reply_text(struct gdb_reply *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

enum { GDB_FRAME_MAX = 2 * GDB_PACKET_MAX + 5 };
/* The frame of an answer, in GDB_FRAME_MAX bytes of *ret; its length. */
size_t gdb_frame(const struct gdb_reply *r, char *ret);

/* 0 to 15; -1: no digit. */
int gdb_digit(char c);
/* "12ef" into bytes, as many as there are; false when it is not n whole bytes. */
bool gdb_unhex(const char *text, size_t len, void *ret, size_t n);
