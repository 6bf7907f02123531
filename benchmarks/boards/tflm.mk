# TFLM for one core: libtflm.a has interpreter and reference kernels, libcmsis_nn.a Arm's kernels, which are linked before it.
# libunoptimized.a has what gcc 12.2.1 miscompiles.
#   make -f tflm.mk TFLM=DIR OUT=DIR MACHINE='-mcpu=cortex-m4 ...'
# TFLM is a checkout with its downloads. Only kernels of operators that we write are compiled, by TFLM's own flags
# (its Makefile, cortex_m_generic_makefile.inc), but all for size. What is there already is not compiled again.
DOWNLOADS := $(TFLM)/tensorflow/lite/micro/tools/make/downloads
MICRO := tensorflow/lite/micro
KERNELS := add concatenation conv decode depthwise_conv fully_connected kernel_util leaky_relu logistic maximum_minimum \
  micro_tensor_utils mul pad pooling prelu quantize reduce reshape resize_nearest_neighbor slice

sources = $(patsubst $(TFLM)/%,%,$(wildcard $(addprefix $(TFLM)/,$(1))))
TESTS := %_test.cc %_test_common.cc $(addprefix $(MICRO)/,fake_% mock_% test_% testing_%)
UNUSED := $(addprefix $(MICRO)/,debug_log.cc hexdump.cc micro_profiler.cc micro_time.cc recording_% system_setup.cc \
  arena_allocator/recording_% kernels/add_n.cc)
CORE := $(filter-out $(TESTS) $(UNUSED),$(call sources,$(addsuffix /*.cc,$(MICRO) \
  $(MICRO)/arena_allocator $(MICRO)/memory_planner $(MICRO)/tflite_bridge tensorflow/lite/kernels \
  tensorflow/lite/kernels/internal tensorflow/lite/kernels/internal/reference tensorflow/lite/core/api \
  tensorflow/lite/core/c tensorflow/compiler/mlir/lite/schema tensorflow/compiler/mlir/lite/core/api)))
CORE += $(MICRO)/cortex_m_generic/debug_log.cc
REFERENCE := $(filter-out $(TESTS) $(UNUSED),$(call sources,$(foreach kernel,$(KERNELS),$(MICRO)/kernels/$(kernel).cc $(MICRO)/kernels/$(kernel)_*.cc)))
GLUE := $(call sources,$(foreach kernel,$(KERNELS),$(MICRO)/kernels/cmsis_nn/$(kernel).cc))
ARM := $(filter-out %_f16.c %_f32.c %_flt.c,$(patsubst $(DOWNLOADS)/%,%,$(wildcard $(foreach part,BasicMath \
  Convolution FullyConnected NNSupport Pad Pooling Transpose,$(DOWNLOADS)/cmsis_nn/Source/$(part)Functions/*.c))))
# gcc 12.2.1 gives MVE the predicate -1 in these, not their 0x0F0F, unless it does not optimize.
MISCOMPILED := $(filter %/arm_nn_depthwise_conv_nt_t_s4.c %/arm_depthwise_conv_s4_opt.c,$(ARM))

FLAGS = $(MACHINE) -Os -MD -ffunction-sections -fdata-sections -fno-unwind-tables -fno-asynchronous-unwind-tables \
  -fomit-frame-pointer -funsigned-char -DTF_LITE_STATIC_MEMORY -DTF_LITE_MCU_DEBUG_LOG \
  $(addprefix -isystem ,$(TFLM) $(addprefix $(DOWNLOADS)/,flatbuffers/include gemmlowp ruy cmsis cmsis_nn cmsis_nn/Include cmsis/CMSIS/Core/Include))
SOURCE_FLAGS := -DARM_NN_ENABLE_F16=0 -DARM_NN_ENABLE_F32=0 -DKERNELS_OPTIMIZED_FOR_SPEED
CXX := arm-none-eabi-g++ -std=c++17 -fno-rtti -fno-exceptions -fno-threadsafe-statics
HEADERS := $(OUT)/tflm.h.gch
THIS := $(lastword $(MAKEFILE_LIST))

objects = $(addprefix $(OUT)/,$(addsuffix .o,$(1)))
all: $(OUT)/libtflm.a $(OUT)/libcmsis_nn.a $(OUT)/libunoptimized.a

$(OUT)/libtflm.a: $(call objects,$(CORE) $(REFERENCE))
$(OUT)/libcmsis_nn.a: $(call objects,$(GLUE) $(ARM))
$(OUT)/libunoptimized.a: $(addprefix $(OUT)/,$(addsuffix .O0.o,$(MISCOMPILED)))
$(OUT)/%.a: $(THIS)
	rm -f $@
	arm-none-eabi-ar rcs $@ $(filter %.o,$^)

$(HEADERS): $(dir $(THIS))tflm.h
	@mkdir -p $(@D)
	$(CXX) $(FLAGS) -x c++-header $< -o $@

$(call objects,$(GLUE)): FLAGS += -DCMSIS_NN
$(OUT)/%.cc.o: $(TFLM)/%.cc $(HEADERS)
	@mkdir -p $(@D)
	$(CXX) $(FLAGS) $(SOURCE_FLAGS) -Winvalid-pch -include $(basename $(HEADERS)) -c $< -o $@
$(OUT)/%.c.o: $(DOWNLOADS)/%.c
	@mkdir -p $(@D)
	arm-none-eabi-gcc -std=c17 $(FLAGS) $(SOURCE_FLAGS) -c $< -o $@
$(OUT)/%.c.O0.o: $(DOWNLOADS)/%.c
	@mkdir -p $(@D)
	arm-none-eabi-gcc -std=c17 $(FLAGS) $(SOURCE_FLAGS) -O0 -c $< -o $@

-include $(HEADERS:.gch=.d) $(patsubst %.o,%.d,$(call objects,$(CORE) $(REFERENCE) $(GLUE) $(ARM)))
.DELETE_ON_ERROR:
