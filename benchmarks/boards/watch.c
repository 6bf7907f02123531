/* Linked with a check: has TFLM's log printed, and says at the end how deep the stack went. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

extern uint32_t stack_top;
extern void RegisterDebugLogCallback(void (*callback)(const char* text));

#define WATCHED 8192 /* bytes below stack_top */
#define UNUSED 0xA5A5A5A5u

static void Log(const char* text) { fputs(text, stdout); }

static void Report(void) {
  const uint32_t* deepest = &stack_top - WATCHED / 4;
  while (*deepest == UNUSED) ++deepest;
  printf("stack: %u bytes\n", (unsigned)((const char*)&stack_top - (const char*)deepest));
}

__attribute__((constructor)) static void Watch(void) {
  volatile uint32_t* word = &stack_top - WATCHED / 4;
  while (word < (uint32_t*)__builtin_frame_address(0) - 16) *word++ = UNUSED;
  RegisterDebugLogCallback(Log);
  atexit(Report);
}
