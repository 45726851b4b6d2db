/* All network backends of this build: the list comes from the meson.build files. */
#include "devices/net/backend.h"

#define NET(name) extern const struct net_class net_##name;
#include "net_list.h"
#undef NET

const struct net_class *const net_classes[] = {
#define NET(name) &net_##name,
#include "net_list.h"
#undef NET
    NULL,
};

const struct net_class *net_class_find(const char *name)
{
    for (const struct net_class *const *c = net_classes; *c; c++)
        if (!strcmp((*c)->name, name))
            return *c;
    return NULL;
}

struct opt_choice net_choice(unsigned i)
{
    const struct net_class *c = net_classes[i];

    return c ? (struct opt_choice){c->name, c->summary, c->opts, c->size, c->first} : (struct opt_choice){.name = NULL};
}
