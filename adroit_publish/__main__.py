from adroit_publish.cli.commands import main

main()
