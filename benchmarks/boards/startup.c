/* What a Cortex-M needs before main: a stack, its vectors, the FPU, memory that is zero. newlib prints and ends by
   semihosting, which QEMU answers. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

extern uint32_t bss_start, bss_end, stack_top;
extern void __libc_init_array(void);
extern void initialise_monitor_handles(void);
extern int main(void);

#define CPACR (*(volatile uint32_t*)0xE000ED88)

void _init(void) {}
void _fini(void) {}

void Reset(void) {
  CPACR |= 0xFu << 20; /* floating point, and the vector instructions of M55 */
  __asm volatile("dsb\n isb");
  memset(&bss_start, 0, (size_t)((char*)&bss_end - (char*)&bss_start));
  initialise_monitor_handles();
  __libc_init_array();
  exit(main());
}

static void Fault(void) { _Exit(3); }

__attribute__((section(".vectors"), used)) static const void* const kVectors[] = {
    &stack_top, (void*)Reset, (void*)Fault, (void*)Fault, (void*)Fault, (void*)Fault, (void*)Fault};
