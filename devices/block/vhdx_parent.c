/*
 * The parent locator of a differencing VHDX image [MS-VHDX 2.6.2.6]: a type, a count, and for each key and value where
 * they are in the item, in UTF-16.  Of the ways to the parent the relative path counts; the others are absolute in
 * Windows, so that their last part, beside the image, is what can be meant here.
 */
#include <stdio.h>
#include <strings.h>

#include "devices/block/blkimg.h"
#include "devices/block/vhdx.h"
#include "vmm/base/cleanup.h"

enum {
    LOCATOR_MAX = 64 << 10, /* bytes of an item */
    HEADER = 20,
    COUNT = 18, /* its offset there */
    ENTRY = 12,
    ENTRY_KEY = 0,
    ENTRY_VALUE = 4,
    ENTRY_KEY_LEN = 8,
    ENTRY_VALUE_LEN = 10,
};

static const uint8_t type_vhdx[16] = {0xb7, 0xef, 0x4a, 0xb0, 0x9e, 0xd1, 0x81, 0x4a,
                                      0xb7, 0x89, 0x25, 0xb8, 0xe9, 0x44, 0x59, 0x13};

/* The value of a key; false: there is none that is a text of less than `max` bytes. */
static bool value_of(const uint8_t *item, uint32_t len, const char *key, char *ret, size_t max)
{
    unsigned n = get_le16(item + COUNT);

    for (unsigned i = 0; i < n && HEADER + (i + 1) * ENTRY <= len; i++) {
        const uint8_t *e = item + HEADER + i * ENTRY;
        uint32_t k = get_le32(e + ENTRY_KEY), v = get_le32(e + ENTRY_VALUE);
        uint16_t klen = get_le16(e + ENTRY_KEY_LEN), vlen = get_le16(e + ENTRY_VALUE_LEN);
        char name[32];

        if (range_fits(k, klen, len) && range_fits(v, vlen, len) &&
            blkimg_utf16(item + k, klen, false, name, sizeof(name)) && !strcmp(name, key))
            return blkimg_utf16(item + v, vlen, false, ret, max);
    }
    return false;
}

static bool name_of(const uint8_t *item, uint32_t len, char *ret, size_t max)
{
    const char *slash;

    if (value_of(item, len, "relative_path", ret, max))
        return true;
    if (!value_of(item, len, "volume_path", ret, max) && !value_of(item, len, "absolute_win32_path", ret, max))
        return false;
    slash = strrchr(ret, '/');
    if (slash)
        memmove(ret, slash + 1, strlen(slash + 1) + 1);
    return *ret;
}

int vhdx_parent_read(struct blk *b, uint64_t off, uint32_t len, struct vhdx_parent *ret, struct err *err)
{
    cleanup_free uint8_t *item = NULL;
    int rc;

    if (len < HEADER || len > LOCATOR_MAX)
        return blkimg_bad(b, err, "it does not name its parent");
    item = xcalloc(1, len);
    rc = blkimg_header(b, item, len, off, err);
    if (rc)
        return rc;
    if (memcmp(item, type_vhdx, sizeof(type_vhdx)) != 0)
        return blkimg_refuse(b, err, "it is the difference to something else than a VHDX image, which is not known");
    if (!name_of(item, len, ret->name, sizeof(ret->name)))
        return blkimg_bad(b, err, "it does not name its parent");
    if (!value_of(item, len, "parent_linkage", ret->linkage[0], sizeof(ret->linkage[0])))
        return blkimg_bad(b, err, "it does not say what its parent calls itself");
    if (!value_of(item, len, "parent_linkage2", ret->linkage[1], sizeof(ret->linkage[1])))
        *ret->linkage[1] = 0;
    return 0;
}

bool vhdx_parent_is(const struct vhdx_parent *p, const uint8_t g[16])
{
    char text[VHDX_GUID_TEXT];

    snprintf(text, sizeof(text), "{%08x-%04x-%04x-%02x%02x-%02x%02x%02x%02x%02x%02x}", get_le32(g), get_le16(g + 4),
             get_le16(g + 6), g[8], g[9], g[10], g[11], g[12], g[13], g[14], g[15]);
    return !strcasecmp(text, p->linkage[0]) || !strcasecmp(text, p->linkage[1]);
}
