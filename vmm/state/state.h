/*
 * A device's guest-visible state is one nested struct, and a table names its fields.  Reset assigns the struct, save
 * and load walk the table, and a unit test proves that every byte is named.
 *
 * On the wire fields go by name: unknown or missing fields are told apart from damage, and a missing field keeps its
 * reset value.  Format: a section is {u32 magic, u16 version, u8 name length, name, u32 payload length}, a field in it
 * is {u8 name length, name, u8 kind, u32 length, bytes}; integers little endian; the bytes of nested structs are
 * sections without the magic, one for each element of an array.
 */
#pragma once
#include "vmm/base/base.h"
#include "vmm/base/err.h"

enum field_kind { FIELD_END, FIELD_UINT, FIELD_BOOL, FIELD_BYTES, FIELD_STRUCT };

struct state_desc;

struct field {
    const char *name;
    enum field_kind kind;
    uint32_t off, size, count; /* size of one element in bytes; count elements */
    const struct state_desc *sub;
};

struct state_desc {
    const char *name;
    uint16_t version; /* raised when older bothys must not load it; fields alone may come and go without */
    uint32_t size;    /* of the described struct */
    const struct field *fields;
    int (*check)(void *obj, struct err *err); /* after load: the stream is hostile */
};

#define FIELD_CHECKED(T, f, type)                                                                          \
    (offsetof(T, f) + 0 * sizeof(struct {                                                                  \
                          _Static_assert(_Generic(((T *)0)->f, type : 1, default : 0), #f ": wrong type"); \
                          int x;                                                                           \
                      }))
#define F_U8(T, f)                                               \
    {                                                            \
#f, FIELD_UINT, FIELD_CHECKED(T, f, uint8_t), 1, 1, NULL \
    }
#define F_U16(T, f)                                               \
    {                                                             \
#f, FIELD_UINT, FIELD_CHECKED(T, f, uint16_t), 2, 1, NULL \
    }
#define F_U32(T, f)                                               \
    {                                                             \
#f, FIELD_UINT, FIELD_CHECKED(T, f, uint32_t), 4, 1, NULL \
    }
#define F_U64(T, f)                                               \
    {                                                             \
#f, FIELD_UINT, FIELD_CHECKED(T, f, uint64_t), 8, 1, NULL \
    }
#define F_BOOL(T, f)                                          \
    {                                                         \
#f, FIELD_BOOL, FIELD_CHECKED(T, f, bool), 1, 1, NULL \
    }
#define F_BYTES(T, f)                                                 \
    {                                                                 \
#f, FIELD_BYTES, offsetof(T, f), 1, sizeof(((T *)0)->f), NULL \
    }
#define F_STRUCT(T, f, d)                                           \
    {                                                               \
#f, FIELD_STRUCT, offsetof(T, f), sizeof(((T *)0)->f), 1, d \
    }
#define F_ARRAY(T, f, d)                                                                    \
    {                                                                                       \
#f, FIELD_STRUCT, offsetof(T, f), sizeof(((T *)0)->f[0]), array_len(((T *)0)->f), d \
    }
#define F_END                          \
    {                                  \
        NULL, FIELD_END, 0, 0, 0, NULL \
    }

/* Bytes of the struct that no field names; the unit test of every device wants 0 (so no padding either). */
size_t state_uncovered(const struct state_desc *d);

struct state_writer { /* grows `buf`; set-up path, aborts without memory */
    uint8_t *buf;
    size_t len, cap;
};
struct state_reader { /* borrowed bytes, hostile */
    const uint8_t *buf;
    size_t len, off;
};
enum { STATE_NAME_MAX = 63, STATE_PAYLOAD_MAX = 16 << 20 };

/* One section called `id` ("com1", "disk0.queue3"). */
void state_save(struct state_writer *w, const char *id, const struct state_desc *d, const void *obj);
/*
 * Reads the next section, which must be called `id`, over `obj` (reset before), then runs the checks.  On failure obj
 * is unspecified and must be reset.  -EBADMSG with the place and the reason for every kind of damage.
 */
int state_load(struct state_reader *r, const char *id, const struct state_desc *d, void *obj, struct err *err)
    must_check;
/* For people: an object of the fields by name, the caller's. */
struct json_t *state_to_json(const struct state_desc *d, const void *obj) must_check;
void state_writer_fini(struct state_writer *w);
