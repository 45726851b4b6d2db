#include "vmm/mem/iov.h"

#include "vmm/mem/gmem.h"

unsigned iov_part(const struct iovec *iov, uint64_t skip, uint64_t n, struct iovec *ret, unsigned max, uint64_t *len)
{
    unsigned count = 0;

    *len = 0;
    while (n && skip >= iov->iov_len) {
        skip -= iov->iov_len;
        iov++;
    }
    for (; n && count < max; iov++, skip = 0) {
        size_t part = min_u64(iov->iov_len - skip, n);

        if (!part)
            continue;
        ret[count++] = (struct iovec){.iov_base = (char *)iov->iov_base + skip, .iov_len = part};
        *len += part;
        n -= part;
    }
    return count;
}

static struct gspan span_of(const struct iovec *iov)
{
    return (struct gspan){.p = iov->iov_base, .len = iov->iov_len};
}

void iov_put(const struct iovec *iov, uint64_t skip, const void *src, size_t n)
{
    struct iovec one;

    for (uint64_t at = 0, len; at < n; at += len) {
        iov_part(iov, skip + at, n - at, &one, 1, &len);
        gspan_put(span_of(&one), 0, (const char *)src + at, len);
    }
}

void iov_get(const struct iovec *iov, uint64_t skip, void *dst, size_t n)
{
    struct iovec one;

    for (uint64_t at = 0, len; at < n; at += len) {
        iov_part(iov, skip + at, n - at, &one, 1, &len);
        gspan_get(span_of(&one), 0, (char *)dst + at, len);
    }
}

void iov_zero(const struct iovec *iov, uint64_t skip, uint64_t n)
{
    static const char zeroes[4096];
    struct iovec one;

    for (uint64_t at = 0, len; at < n; at += len) {
        iov_part(iov, skip + at, min_u64(n - at, sizeof(zeroes)), &one, 1, &len);
        gspan_put(span_of(&one), 0, zeroes, len);
    }
}
