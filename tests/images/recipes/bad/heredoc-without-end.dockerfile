FROM debian:12
RUN <<EOF
true
# finding: 2 error syntax stand alone
