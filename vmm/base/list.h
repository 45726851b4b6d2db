/* An intrusive doubly linked list; a head is a node that belongs to nobody. */
#pragma once
#include "vmm/base/base.h"

struct list {
    struct list *next, *prev;
};

static inline void list_init(struct list *l)
{
    l->next = l->prev = l;
}

static inline bool list_empty(const struct list *l)
{
    return l->next == l;
}

static inline void list_add_tail(struct list *head, struct list *node)
{
    node->prev = head->prev;
    node->next = head;
    head->prev->next = node;
    head->prev = node;
}

/* The node is left pointing at itself, so that deleting it twice does nothing. */
static inline void list_del(struct list *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    list_init(node);
}

/* NULL when the list is empty; else the first node, taken off it. */
static inline struct list *list_pop(struct list *head)
{
    struct list *n = head->next;

    if (n == head)
        return NULL;
    list_del(n);
    return n;
}

/* Those of `from` behind those of `to`; `from` is empty then. */
static inline void list_move_all(struct list *to, struct list *from)
{
    struct list *n;

    while ((n = list_pop(from)))
        list_add_tail(to, n);
}

#define list_for_each(pos, head) for (struct list *pos = (head)->next; pos != (head); pos = pos->next)
