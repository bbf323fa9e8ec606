FROM debian:12
RUN apt-get update &&
    apt-get install -y curl
# finding: 3 error instruction-unknown backslash
