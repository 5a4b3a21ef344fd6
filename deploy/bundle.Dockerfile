# The controller's image and a bundle in it.
#   docker build -t deepscaler-boutique:0.1.0 -f deploy/bundle.Dockerfile model_states/boutique
# Another network: add --build-arg BUNDLE=AdapGLA.pt
ARG IMAGE=deepscaler:0.1.0
FROM ${IMAGE}
ARG BUNDLE=AdapGLQ.pt
COPY ${BUNDLE} /etc/deepscaler/bundle/bundle.pt
