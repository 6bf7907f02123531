# qkd_tf on CPUs. It has not been built here: no Docker was at hand.
#
#   docker build -f docker/cpu.Dockerfile -t qkd_tf .
#   docker run --rm -v "$PWD/runs:/work/runs" qkd_tf qkd_tf.train --flagfile=configs/demo.flags
FROM python:3.11-slim

WORKDIR /work
COPY requirements.txt requirements-micro.txt constraints.txt ./
RUN pip install --no-cache-dir -r requirements.txt -r requirements-micro.txt -c constraints.txt
COPY qkd_tf qkd_tf
COPY tflite_export tflite_export
COPY configs configs

# A run folder on a mounted path belongs to whoever runs the container: docker run --user "$(id -u):$(id -g)".
ENV PYTHONPATH=/work HOME=/tmp MPLCONFIGDIR=/tmp/matplotlib
ENTRYPOINT ["python", "-m"]
CMD ["qkd_tf.doctor"]
