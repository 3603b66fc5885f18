# A folder of packages, which MLX_DEPS names, may be without Axon or Bumblebee.
missing =
  for {module, tag} <- [{Axon, :axon}, {Bumblebee, :bumblebee}],
      not Code.ensure_loaded?(module) do
    IO.puts(
      "Left out: tests tagged :#{tag}, because #{inspect(module)} is not among the packages."
    )

    tag
  end

# bin/test gets the weights.
without_weights =
  if System.get_env("MLX_MINILM") do
    []
  else
    IO.puts(
      "Left out: tests tagged :minilm, because MLX_MINILM does not name the model's folder."
    )

    [:minilm]
  end

# They run for minutes, each as long as SOAK_SECONDS says.
IO.puts("Left out: tests tagged :soak, which take minutes; run them with mix test --only soak.")

Mlx.TestDevice.start()
left_out = Mlx.TestDevice.left_out()
for {tag, reason} <- left_out, do: IO.puts("Left out: tests tagged :#{tag}, because #{reason}.")

# Tests share one stream, so that each may wait for what the others compute.
ExUnit.start(
  exclude: [
    :soak | missing ++ without_weights ++ for({tag, _reason} <- left_out, do: {tag, true})
  ],
  timeout: 300_000,
  # On an NVIDIA GPU the stream may be compiling kernels for another test.
  assert_receive_timeout: if(Mlx.TestDevice.device() == :gpu, do: 240_000, else: 30_000)
)
