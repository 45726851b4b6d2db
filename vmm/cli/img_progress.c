/* The progress bar: on one line of standard error, with the rate and the time that is left. */
#include <inttypes.h>
#include <unistd.h>

#include "vmm/base/clock.h"
#include "vmm/cli/img.h"

enum { STEP_NS = 100 * 1000 * 1000, BAR = 30 };

void img_progress_init(struct img_progress *p, uint64_t total, bool force, bool quiet)
{
    *p = (struct img_progress){.shown = !quiet && (force || isatty(STDERR_FILENO)), .total = total};
    pthread_mutex_init(&p->lock, NULL);
    p->start_ns = clock_now_ns();
    p->next_ns = p->start_ns + STEP_NS;
}

static void print(const struct img_progress *p, uint64_t now)
{
    static const char full[] = "##############################", empty[] = "..............................";
    uint64_t done = min_u64(p->done, p->total);
    double part = p->total ? (double)done / (double)p->total : 1, seconds = (double)(now - p->start_ns) / 1e9;
    double rate = seconds > 0 ? (double)done / seconds : 0;
    unsigned left = rate > 0 ? (unsigned)((double)(p->total - done) / rate + 0.5) : 0;
    char text[IMG_SIZE_TEXT];
    int n = (int)(part * BAR);

    static_assert(sizeof(full) == BAR + 1 && sizeof(empty) == BAR + 1, "as wide as the bar");
    fprintf(stderr, "\r[%.*s%.*s] %5.1f%%  %9s/s  %u:%02u left ", n, full, BAR - n, empty, part * 100,
            img_size_text((uint64_t)rate, text), left / 60, left % 60);
    fflush(stderr);
}

void img_progress_add(struct img_progress *p, uint64_t n)
{
    uint64_t now;

    p->done += n;
    if (!p->shown || pthread_mutex_trylock(&p->lock))
        return;
    now = clock_now_ns();
    if (now >= p->next_ns) {
        print(p, now);
        p->next_ns = now + STEP_NS;
    }
    pthread_mutex_unlock(&p->lock);
}

void img_progress_fini(struct img_progress *p)
{
    if (p->shown) {
        print(p, clock_now_ns());
        fputc('\n', stderr);
    }
    pthread_mutex_destroy(&p->lock);
}
