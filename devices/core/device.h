/*
 * What every device is: a class (a const table: name, options, life cycle) and an instance (options, state, regions). A
 * device reaches the world through `struct device_env` only, so all of them run in unit tests with no KVM.
 *
 * Life: create (options parsed) → init → reset → settle → [start ⇄ stop] → fini.  The machine calls all of these;
 * reset, settle, save and load only while stopped.  All callbacks run in the device's lane.
 */
#pragma once
#include <jansson.h>

#include "vmm/base/base.h"
#include "vmm/base/err.h"
#include "vmm/base/opt.h"
#include "vmm/bus/bus.h"
#include "vmm/irq/irq.h"
#include "vmm/loop/loop.h"
#include "vmm/mem/gmem.h"
#include "vmm/state/state.h"

struct device;
struct pci_bus;
struct virtio;

/* What can be asked of a device while its machine is there: "bothy ctl SOCKET disk0.resize size=20G". */
struct device_command {
    const char *name, *help;
    const struct opt *opts; /* its arguments; NULL: none */
    size_t size;            /* of the struct that they fill */
    bool still;             /* machine stopped meanwhile: no CPU runs, nothing is in flight */
    /* In the lane.  `args` is that struct, `reply` an object that may be given members.  0 or -errno. */
    int (*run)(struct device *d, const void *args, json_t *reply, struct err *err);
};

/* Which thread a device's lane is on. */
enum device_loop {
    LOOP_MAIN, /* with consoles and platform devices */
    LOOP_IO,   /* with disks */
    LOOP_OWN,  /* one of its own */
};

struct device_class {
    const char *name, *summary;
    size_t size;            /* DEVICE_SIZE(); zeroed by the core */
    const struct opt *opts; /* parsed into the instance before init; may be NULL */
    const char *first;      /* option that a leading bare word sets, or NULL */
    enum device_loop loop;
    bool internal;                                  /* made by the machine, never by name from the command line */
    int (*init)(struct device *d, struct err *err); /* after a failure fini follows */
    void (*fini)(struct device *d);                 /* copes with a half-done init */
    void (*reset)(struct device *d);                /* own state only: no irq, no guest RAM */
    void (*settle)(struct device *d);               /* after reset or load: drive outputs from state */
    void (*start)(struct device *d);
    void (*stop)(struct device *d);        /* take no new work; the core then drains the lane */
    const struct device_command *commands; /* ends with a NULL name; may be NULL */
    json_t *(*info)(struct device *d);     /* counters and the like: an object, the caller's; may be NULL */
};

/* An instance starts with its struct device, so that the core can allocate it from the class alone. */
#define DEVICE_SIZE(T, m)                                                                  \
    (sizeof(T) + 0 * sizeof(struct {                                                       \
                     _Static_assert(offsetof(T, m) == 0, "struct device must come first"); \
                     int x;                                                                \
                 }))

/* What a device asks of the machine.  REQ_EXIT carries the exit code that bothy ends with; REQ_BUTTON presses the power
 * button, REQ_QUIT is the user's wish to end at once; REQ_PAUSE and REQ_RESUME stop and continue the guest. */
enum request { REQ_RESET, REQ_POWEROFF, REQ_EXIT, REQ_CRASHED, REQ_BUTTON, REQ_QUIT, REQ_PAUSE, REQ_RESUME, REQ_COUNT };

/* All that a device can reach.  Functions may be called from any thread, any lane held, unless they say otherwise. */
struct device_env {
    struct gmem *mem;
    struct bus *pio, *mmio;
    struct loop *loop; /* the main one */
    struct msi_sink *msi;
    struct pci_bus *pci; /* NULL on a board without */
    /* An input of interrupt line `gsi` (shared lines are ORed).  Set-up only. */
    struct irq (*line)(struct device_env *env, unsigned gsi);
    /* 0 or -errno (-ENOSYS: none to be had, writes arrive at the region).  Machine running or stopped, in the lane. */
    int (*doorbell_add)(struct device_env *env, const struct doorbell *d);
    void (*doorbell_del)(struct device_env *env, const struct doorbell *d);
    /* Gives a virtio device its transport on this board (PCI function or MMIO window).  Called by virtio_init(). */
    int (*attach_virtio)(struct device_env *env, struct virtio *v, struct err *err);
    /* Acted on later, by the main loop. */
    void (*request)(struct device_env *env, enum request r, int code);
    /* REQ_PAUSE because of what the user is told: what failed, and, last, what to do before the
     * guest is continued. */
    void (*pause)(struct device_env *env, const char *why);
};

/* One described struct of a device's state; an array of `count` equal ones when a device has several (queues). */
struct device_part {
    const char *name; /* "" for the device's main struct */
    const struct state_desc *desc;
    void *obj;
    unsigned count;
};
enum { DEVICE_PARTS_MAX = 8 };

/*
 * What several kinds of device embed (the virtio core, a PCI function) and what has a life cycle of its own.  Called
 * before the class's callbacks, in order of registration, so that no class has to remember to pass them on.  Each may
 * be NULL.
 */
struct device_hook {
    void (*reset)(struct device_hook *h);
    void (*settle)(struct device_hook *h);
    void (*start)(struct device_hook *h);
    void (*stop)(struct device_hook *h);
    struct device_hook *next; /* private to the core */
};

struct device {
    const struct device_class *cls;
    char id[32];            /* "net0" */
    struct device_env *env; /* borrowed */
    struct lane lane;
    struct device_part parts[DEVICE_PARTS_MAX];
    unsigned nparts;
    struct device_hook *hooks;
};

/* The class of that name, or NULL; device_classes is NULL-terminated and generated from the meson lists. */
extern const struct device_class *const device_classes[];
const struct device_class *device_class_find(const char *name);

/* Allocates and parses `options` ("path=…,ro") into the instance; no side effects on the host yet.  An id is 1 to 31
 * letters, digits, - and _. */
int device_create(const struct device_class *cls, const char *id, const char *options, struct device **ret,
                  struct err *err) must_check;
/* Runs cls->init in `env`, lane on `loop`.  On failure only device_destroy() may follow. */
int device_init(struct device *d, struct device_env *env, struct loop *loop, struct err *err) must_check;
/* Drains the lane and runs cls->fini if init has run; frees.  Accepts NULL. */
void device_destroy(struct device *d);

/* From init: names a struct that reset, save, load and `info` work on. */
void device_add_state(struct device *d, const char *name, const struct state_desc *desc, void *obj, unsigned count);
/* From init; the hook belongs to the instance. */
void device_add_hook(struct device *d, struct device_hook *h);

/* NULL: the class has no such command. */
const struct device_command *device_command_find(const struct device *d, const char *name);
/* With `args`, "key=value,…".  Takes the lane; the caller sees to cmd->still. */
int device_command_run(struct device *d, const struct device_command *cmd, const char *args, json_t *reply,
                       struct err *err) must_check;
/* What cls->info says, and the fields of the state tables by part; the caller's.  Takes the lane. */
json_t *device_info(struct device *d) must_check;

/* In the order of the life cycle; take the lane. */
void device_reset(struct device *d);
void device_settle(struct device *d);
void device_start(struct device *d);
void device_stop(struct device *d); /* and drain */
void device_save(struct device *d, struct state_writer *w);
/* Reset, then load over it.  The caller settles. */
int device_load(struct device *d, struct state_reader *r, struct err *err) must_check;
