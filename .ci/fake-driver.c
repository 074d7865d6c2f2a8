// Stands in for CUDA's driver, cuBLAS and cuRAND where only the copies to a device and back are to be checked: the device's
// memory is the host's, everything is done at once, and no kernel can be loaded. Every function not named here is missing.
//
// An asynchronous copy from or to the host is held back until its stream is waited for, as a device may: a caller that
// touches page-locked memory too early is seen.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct Copy {
  void *to;
  const void *from;
  size_t bytes;
  struct Copy *next;
} Copy;

typedef struct {
  Copy *first, **last;
} Stream;

static void queue(Stream *stream, void *to, const void *from, size_t bytes) {
  Copy *copy = malloc(sizeof *copy);
  *copy = (Copy){to, from, bytes, NULL};
  *stream->last = copy;
  stream->last = &copy->next;
}

int cuInit(unsigned flags) { return (void)flags, 0; }
int cuDeviceGet(int *device, int ordinal) { return *device = ordinal, ordinal == 0 ? 0 : 101; }
int cuDeviceGetAttribute(int *value, int attribute, int device) { return (void)attribute, (void)device, *value = 1, 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) { return (void)device, *context = (void *)8, 0; }
int cuDevicePrimaryCtxRelease_v2(int device) { return (void)device, 0; }
int cuCtxGetCurrent(void **context) { return *context = (void *)8, 0; }
int cuCtxSetCurrent(void *context) { return (void)context, 0; }
int cuCtxSynchronize(void) { return 0; }
int cuGetErrorString(int error, const char **text) { return (void)error, *text = "a fault of the stand-in", 0; }
int cuGetErrorName(int error, const char **text) { return cuGetErrorString(error, text); }

int cuEventCreate(void **event, unsigned flags) { return (void)flags, *event = (void *)8, 0; }
int cuEventDestroy_v2(void *event) { return (void)event, 0; }
int cuEventRecord(void *event, void *stream) { return (void)event, (void)stream, 0; }
int cuEventSynchronize(void *event) { return (void)event, 0; }
int cuStreamWaitEvent(void *stream, void *event, unsigned flags) { return (void)stream, (void)event, (void)flags, 0; }

int cuStreamCreate(void **made, unsigned flags) {
  Stream *stream = malloc(sizeof *stream);
  *stream = (Stream){NULL, &stream->first};
  return (void)flags, *made = stream, 0;
}
int cuStreamSynchronize(Stream *stream) {
  // Less than a page: the names of the default streams.
  if ((uintptr_t)stream < 4096) return 0;
  while (stream->first) {
    Copy *copy = stream->first;
    memcpy(copy->to, copy->from, copy->bytes);
    stream->first = copy->next;
    free(copy);
  }
  stream->last = &stream->first;
  return 0;
}
int cuStreamDestroy_v2(Stream *stream) { return cuStreamSynchronize(stream), free(stream), 0; }

int cuMemHostAlloc(void **memory, size_t bytes, unsigned flags) { return (void)flags, *memory = malloc(bytes), 0; }
int cuMemFreeHost(void *memory) { return memset(memory, 0xff, 4), free(memory), 0; }
int cuMemAlloc_v2(void **memory, size_t bytes) { return *memory = malloc(bytes), 0; }
int cuMemAllocAsync(void **memory, size_t bytes, void *stream) { return (void)stream, cuMemAlloc_v2(memory, bytes); }
// Freed on its stream, so after the copies that are queued there.
int cuMemFreeAsync(void *memory, Stream *stream) { return cuStreamSynchronize(stream), free(memory), 0; }
int cuMemFree_v2(void *memory) { return free(memory), 0; }
int cuMemcpyHtoDAsync_v2(void *to, const void *from, size_t bytes, Stream *stream) { return queue(stream, to, from, bytes), 0; }
int cuMemcpyDtoHAsync_v2(void *to, void *from, size_t bytes, Stream *stream) { return queue(stream, to, from, bytes), 0; }

int cublasCreate_v2(void **handle) { return *handle = (void *)8, 0; }
int cublasDestroy_v2(void *handle) { return (void)handle, 0; }
int cublasSetStream_v2(void *handle, void *stream) { return (void)handle, (void)stream, 0; }
int curandCreateGenerator(void **generator, int kind) { return (void)kind, *generator = (void *)8, 0; }
int curandDestroyGenerator(void *generator) { return (void)generator, 0; }
int curandSetPseudoRandomGeneratorSeed(void *generator, unsigned long long seed) { return (void)generator, (void)seed, 0; }
int curandSetStream(void *generator, void *stream) { return (void)generator, (void)stream, 0; }
