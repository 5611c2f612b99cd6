/**
 * The Python wheels that libtensorflow is taken from, each pinned by size and hash, and what is taken from it.
 *
 * CPU builds need the two libraries of TensorFlow alone. The CUDA build opens NVIDIA's libraries beside them, of its
 * `and-cuda` extra, and XLA uses an assembler and a library of device functions (cuda_nvcc); those for profiling, several
 * GPUs (cuda_cupti, nccl) and curand are left out: nothing here opens them.
 */

import { SetupError, type Wheel } from "../../install/wheel.ts";

/** What libtensorflow is installed from on a platform. Throws a {@link SetupError} where there is nothing. */
export function wheelsFor(cuda: boolean, platform = `${Deno.build.os}-${Deno.build.arch}`): Wheel[] {
  const wheels = BUILDS[cuda ? `${platform}-cuda` : platform];
  if (wheels) return wheels;
  throw new SetupError(
    cuda
      ? `The build for CUDA exists for linux-x86_64 only, and this is ${platform}. Leave out --cuda.`
      : `There is no libtensorflow to install for ${platform}. If you have one, set LIBTENSORFLOW_DIR to the folder ` +
        "that holds it; else use another backend.",
  );
}

const BUILDS: Record<string, Wheel[]> = {
  "linux-x86_64": [{
    file: "tensorflow_cpu-2.21.0-cp312-cp312-manylinux_2_27_x86_64.whl",
    bytes: 274_000_871,
    sha256: "dcc8afd32930e42d5296b6ee19078b773706830af4ea97fbe503b9f5e0f820cb",
    libraries: {
      "tensorflow/libtensorflow_cc.so.2": 788_086_608,
      "tensorflow/libtensorflow_framework.so.2": 65_222_328,
    },
  }],
  "linux-aarch64": [{
    file: "tensorflow-2.21.0-cp312-cp312-manylinux_2_27_aarch64.whl",
    bytes: 281_946_471,
    sha256: "b07d15737406533898e36c7ef7944b1be18e9028dc521b9229952c537bbc5552",
    libraries: {
      "tensorflow/libtensorflow_cc.so.2": 814_885_544,
      "tensorflow/libtensorflow_framework.so.2": 68_176_664,
    },
  }],
  "darwin-aarch64": [{
    file: "tensorflow-2.21.0-cp312-cp312-macosx_12_0_arm64.whl",
    bytes: 223_488_205,
    sha256: "56ecd7d47429acbe1df2694d50b75bf9fc3995ac92cb367cd9af6c4780ead712",
    libraries: {
      "tensorflow/libtensorflow_cc.2.dylib": 691_352_648,
      "tensorflow/libtensorflow_framework.2.dylib": 49_452_976,
    },
  }],
  "linux-x86_64-cuda": [{
    file: "tensorflow-2.21.0-cp312-cp312-manylinux_2_27_x86_64.whl",
    bytes: 572_611_111,
    sha256: "b3b95643c4e70eb925839938fb35cbe142f317ec84af6844ee61513713bb13c0",
    libraries: {
      "tensorflow/libtensorflow_cc.so.2": 1_096_372_272,
      "tensorflow/libtensorflow_framework.so.2": 162_648_808,
    },
  }, {
    file: "nvidia_cublas_cu12-12.9.3.13-py3-none-manylinux_2_27_x86_64.whl",
    bytes: 581_217_458,
    sha256: "d7d51055f161b317c7105ddaae90e71eda059026074ffef93cf7cde2886bfe72",
    libraries: {
      "nvidia/cublas/lib/libcublas.so.12": 105_140_976,
      "nvidia/cublas/lib/libcublasLt.so.12": 749_169_616,
    },
  }, {
    file: "nvidia_cuda_nvcc_cu12-12.9.86-py3-none-manylinux2010_x86_64.manylinux_2_12_x86_64.whl",
    bytes: 40_546_229,
    sha256: "5d6a0d32fdc7ea39917c20065614ae93add6f577d840233237ff08e9a38f58f0",
    libraries: {
      "nvidia/cuda_nvcc/bin/ptxas": 34_931_056,
      "nvidia/cuda_nvcc/nvvm/libdevice/libdevice.10.bc": 486_168,
    },
  }, {
    file: "nvidia_cuda_nvrtc_cu12-12.9.86-py3-none-manylinux2010_x86_64.manylinux_2_12_x86_64.whl",
    bytes: 89_568_129,
    sha256: "210cf05005a447e29214e9ce50851e83fc5f4358df8b453155d5e1918094dcb4",
    libraries: {
      "nvidia/cuda_nvrtc/lib/libnvrtc-builtins.so.12.9": 7_202_760,
      "nvidia/cuda_nvrtc/lib/libnvrtc.so.12": 106_244_480,
    },
  }, {
    file: "nvidia_cuda_runtime_cu12-12.9.79-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
    bytes: 3_493_179,
    sha256: "25bba2dfb01d48a9b59ca474a1ac43c6ebf7011f1b0b8cc44f54eb6ac48a96c3",
    libraries: { "nvidia/cuda_runtime/lib/libcudart.so.12": 741_088 },
  }, {
    file: "nvidia_cudnn_cu12-9.28.0.42-py3-none-manylinux_2_27_x86_64.whl",
    bytes: 716_538_495,
    sha256: "9ff58b7f36dacd0a93e89f8f2957b52466889217963701daa15e577317cfa375",
    libraries: {
      "nvidia/cudnn/lib/libcudnn.so.9": 137_432,
      "nvidia/cudnn/lib/libcudnn_adv.so.9": 232_904_280,
      "nvidia/cudnn/lib/libcudnn_cnn.so.9": 4_203_992,
      "nvidia/cudnn/lib/libcudnn_engines_precompiled.so.9": 559_964_512,
      "nvidia/cudnn/lib/libcudnn_engines_runtime_compiled.so.9": 48_269_792,
      "nvidia/cudnn/lib/libcudnn_engines_tensor_ir.so.9": 2_099_128,
      "nvidia/cudnn/lib/libcudnn_ext.so.9": 10_492_448,
      "nvidia/cudnn/lib/libcudnn_graph.so.9": 115_563_344,
      "nvidia/cudnn/lib/libcudnn_heuristic.so.9": 96_473_944,
      "nvidia/cudnn/lib/libcudnn_ops.so.9": 92_284_600,
    },
  }, {
    file: "nvidia_cufft_cu12-11.4.1.4-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
    bytes: 200_877_592,
    sha256: "c67884f2a7d276b4b80eb56a79322a95df592ae5e765cf1243693365ccab4e28",
    libraries: { "nvidia/cufft/lib/libcufft.so.11": 291_507_928 },
  }, {
    file: "nvidia_cusolver_cu12-11.7.5.82-py3-none-manylinux_2_27_x86_64.whl",
    bytes: 338_117_415,
    sha256: "15da72d1340d29b5b3cf3fd100e3cd53421dde36002eda6ed93811af63c40d88",
    libraries: { "nvidia/cusolver/lib/libcusolver.so.11": 302_024_152 },
    // libtensorflow_framework opens it, and its RUNPATH lists each of these folders but nvidia/cusolver/lib.
    into: "nvidia/cusparse/lib",
  }, {
    file: "nvidia_cusparse_cu12-12.5.10.65-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
    bytes: 366_465_088,
    sha256: "73060ce019ac064a057267c585bf1fd5a353734151f87472ff02b2c5c9984e78",
    libraries: { "nvidia/cusparse/lib/libcusparse.so.12": 486_556_368 },
  }, {
    file: "nvidia_nvjitlink_cu12-12.9.86-py3-none-manylinux2010_x86_64.manylinux_2_12_x86_64.whl",
    bytes: 39_748_338,
    sha256: "e3f1171dbdc83c5932a45f0f4c99180a70de9bd2718c1ab77d14104f6d7147f9",
    libraries: { "nvidia/nvjitlink/lib/libnvJitLink.so.12": 95_935_344 },
  }],
};
