FROM scratch
RUN true
# finding: 2 error no-shell no shell
