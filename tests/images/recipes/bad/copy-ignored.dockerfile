FROM debian:12
COPY ignored.txt /opt
# finding: 2 error copy-missing .dockerignore
