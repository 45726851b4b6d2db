/* The byte written to the debug-exit port becomes the exit code of the process. */
#include "guest-tests/lib/test.h"

int main(void)
{
    return parse_number(word("code"), NULL);
}
