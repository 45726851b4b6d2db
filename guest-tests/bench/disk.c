/*
 * Drives a disk as fast as it goes, for tools/bench: depth=N requests of block=BYTES under way at a time, requests=N in
 * all, op=read or op=write, in sequence or at random in the first span=BYTES.  What is timed lies between "begin" and
 * "end" on the debug port.
 */
#include "guest-tests/bench/slots.h"
#include "guest-tests/lib/blk.h"
#include "guest-tests/lib/io.h"

enum { BUFFERS = 32 << 20 }; /* where they begin */

struct job {
    uint64_t block, blocks, requests, at, seed;
    unsigned depth;
    bool random, write;
};

static struct slots slots;
static struct blk_request heads[SLOTS];

static uint64_t number(const char *name)
{
    const char *text = word(name);

    if (!text)
        printf("the word %s= is missing\n", name);
    CHECK(text);
    return parse_number(text, NULL);
}

static uint64_t next_block(struct job *j)
{
    if (!j->random)
        return j->at++ % j->blocks;
    j->seed ^= j->seed << 13; /* xorshift */
    j->seed ^= j->seed >> 7;
    j->seed ^= j->seed << 17;
    return j->seed % j->blocks;
}

static void submit(struct job *j, uint16_t slot)
{
    heads[slot].head.sector = next_block(j) * (j->block / SECTOR);
    heads[slot].status = UINT8_MAX;
    slot_add(&slots, slot);
}

/* All slots are idle before and after. */
static void run(struct job *j, uint64_t requests)
{
    uint64_t begun = 0;
    uint16_t slot;
    uint32_t len;

    for (; begun < j->depth && begun < requests; begun++)
        submit(j, begun);
    for (uint64_t done = 0; done < requests;) {
        slots_kick(&slots);
        while (slot_take(&slots, &slot, &len)) {
            CHECK_EQ(heads[slot].status, BLK_OK);
            done++;
            if (begun < requests) {
                submit(j, slot);
                begun++;
            }
        }
        asm volatile("pause");
    }
}

int main(void)
{
    struct job j = {.seed = 0x9e3779b97f4a7c15, .block = number("block"), .depth = number("depth")};
    static struct virtio v;

    j.requests = number("requests");
    j.blocks = number("span") / j.block;
    j.random = word("random");
    j.write = *word("op") == 'w';
    CHECK(j.block && j.block % SECTOR == 0 && j.blocks && j.depth && j.depth <= SLOTS);
    virtio_open(&v, VIRTIO_BLK, slots_features | 1ull << BLK_F_FLUSH); /* without it every write would be a flush */
    slots_init(&slots, &v, 0);
    virtio_go(&v);
    for (unsigned i = 0; i < j.depth; i++) {
        void *data = phys(BUFFERS + i * j.block);
        const struct buffer b[] = {
            {&heads[i].head, sizeof(heads[i].head), false}, {data, j.block, !j.write}, {&heads[i].status, 1, true}};

        heads[i].head.type = j.write ? BLK_WRITE : BLK_READ;
        memset(data, i + 1, j.block);
        slot_fill(&slots, i, b, array_len(b));
    }
    if (!word("cold"))
        run(&j, 2 * j.depth);
    j.at = 0;
    printf("begin\n");
    run(&j, j.requests);
    printf("end\n");
    return EXIT_PASSED;
}
