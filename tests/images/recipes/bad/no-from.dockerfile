RUN true
# finding: 1 error no-from FROM debian:12
