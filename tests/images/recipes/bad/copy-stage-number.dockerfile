FROM debian:12
COPY --from=3 /a /b
# finding: 2 error stage-missing no such stage
