# qkd_tf on NVIDIA GPUs. It has not been built here, and qkd_tf has not been run on a GPU: neither Docker nor a GPU was at hand.
# The host needs NVIDIA's driver and its container toolkit. CUDA's libraries come with TensorFlow.
#
#   docker build -f docker/gpu.Dockerfile -t qkd_tf:gpu .
#   docker run --rm --gpus all -v "$PWD/runs:/work/runs" qkd_tf:gpu qkd_tf.train --flagfile=configs/demo.flags
FROM python:3.11-slim

WORKDIR /work
COPY requirements.txt requirements-micro.txt constraints.txt ./
RUN pip install --no-cache-dir -r requirements.txt -r requirements-micro.txt 'tensorflow[and-cuda]' -c constraints.txt
COPY qkd_tf qkd_tf
COPY tflite_export tflite_export
COPY configs configs

ENV PYTHONPATH=/work HOME=/tmp MPLCONFIGDIR=/tmp/matplotlib
ENTRYPOINT ["python", "-m"]
CMD ["qkd_tf.doctor"]
