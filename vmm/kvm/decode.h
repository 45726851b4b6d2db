/* Machine code as text, for reports. */
#pragma once
#include "vmm/base/base.h"

/*
 * The instruction at the start of the `n` bytes, which run at `addr` in code of `bits` (16, 32 or 64), in Intel syntax.
 * False when it is none, is cut off, or no decoder is to be had.
 */
bool decode_instruction(unsigned bits, uint64_t addr, const uint8_t *code, size_t n, char *text, size_t text_len);
/* Was bothy built with a decoder, and is its library here? */
bool decode_available(void);
