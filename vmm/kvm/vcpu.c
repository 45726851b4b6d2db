/*
 * A CPU's thread: parked, or in its exit loop.
 *
 * vm_stop() sets immediate_exit, which makes the next KVM_RUN return at once after finishing what the last exit began,
 * then sends a signal, which ends the present one.  Whatever the thread is doing at that moment it meets one of the
 * two, so no wake-up is lost.  The signal does nothing by itself and can come to no harm.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>

#include "vmm/kvm/engine.h"

enum { KICK_SIGNAL = SIGUSR1 };
/* Device code runs here, within bus accesses; it is not deep. */
enum { STACK_SIZE = 256 << 10 };

static void on_kick(int sig)
{
    (void)sig;
}

static void set_immediate_exit(struct vcpu *c, bool on)
{
    __atomic_store_n(&c->run->immediate_exit, on, __ATOMIC_RELEASE);
}

/* Waits for a start that it has not obeyed yet; false: the machine ends. */
static bool park(struct vcpu *c)
{
    struct vm *vm = c->vm;
    bool go;

    pthread_mutex_lock(&vm->lock);
    vm->nparked++;
    pthread_cond_signal(&vm->parked);
    while (!vm->dying && (!vm->running || c->epoch == vm->epoch))
        pthread_cond_wait(&vm->resume, &vm->lock);
    vm->nparked--;
    c->epoch = vm->epoch;
    go = !vm->dying;
    pthread_mutex_unlock(&vm->lock);
    return go;
}

/* Until vm_stop(), or until the guest cannot go on. */
static void run(struct vcpu *c)
{
    enum vm_event event = VM_ENGINE_ERROR;

    for (;;) {
        if (ioctl(c->fd, KVM_RUN, 0) < 0) {
            if (errno == EINTR && __atomic_load_n(&c->run->immediate_exit, __ATOMIC_ACQUIRE))
                return;
            if (errno == EINTR || errno == EAGAIN) /* EAGAIN: woken while it waits for its INIT */
                continue;
            c->error = errno;
            break;
        }
        if (!vcpu_serve_exit(c, &event))
            break;
    }
    c->vm->user->event(c->vm->user, event, c->index);
}

static void *vcpu_main(void *arg)
{
    struct vcpu *c = arg;
    char name[16];
    sigset_t kick;

    snprintf(name, sizeof(name), "cpu%u", c->index);
    pthread_setname_np(pthread_self(), name);
    sigemptyset(&kick);
    sigaddset(&kick, KICK_SIGNAL);
    pthread_sigmask(SIG_UNBLOCK, &kick, NULL);
    while (park(c))
        run(c);
    return NULL;
}

int vcpu_thread_start(struct vcpu *c, struct err *err)
{
    struct sigaction act = {.sa_handler = on_kick, .sa_flags = SA_RESTART}; /* devices' calls, not KVM_RUN */
    sigset_t all, old;
    pthread_attr_t attr;
    int rc;

    sigaction(KICK_SIGNAL, &act, NULL);
    sigfillset(&all);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_SIZE);
    /* The thread inherits the mask: all other signals are for others. */
    pthread_sigmask(SIG_SETMASK, &all, &old);
    rc = pthread_create(&c->thread, &attr, vcpu_main, c);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    if (rc)
        return err_set(err, rc, "thread of CPU %u: %s; raise the limit on processes (ulimit -u)", c->index,
                       strerror(rc));
    c->has_thread = true;
    return 0;
}

void vcpu_threads_end(struct vm *vm)
{
    assert(!vm->running);
    pthread_mutex_lock(&vm->lock);
    vm->dying = true;
    pthread_cond_broadcast(&vm->resume);
    pthread_mutex_unlock(&vm->lock);
    for (unsigned i = 0; i < vm->ncpus; i++)
        if (vm->cpus[i].has_thread)
            pthread_join(vm->cpus[i].thread, NULL);
}

void vm_start(struct vm *vm)
{
    pthread_mutex_lock(&vm->lock);
    assert(!vm->running);
    vm->running = true;
    vm->fresh = false;
    vm->epoch++;
    for (unsigned i = 0; i < vm->ncpus; i++)
        set_immediate_exit(&vm->cpus[i], false);
    pthread_cond_broadcast(&vm->resume);
    pthread_mutex_unlock(&vm->lock);
}

void vm_stop(struct vm *vm)
{
    pthread_mutex_lock(&vm->lock);
    assert(vm->running);
    vm->running = false;
    for (unsigned i = 0; i < vm->ncpus; i++) {
        set_immediate_exit(&vm->cpus[i], true);
        pthread_kill(vm->cpus[i].thread, KICK_SIGNAL);
    }
    while (vm->nparked < vm->ncpus)
        pthread_cond_wait(&vm->parked, &vm->lock);
    pthread_mutex_unlock(&vm->lock);
}
