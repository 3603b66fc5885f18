# Trains a two-layer perceptron on images of handwritten digits:
#
#     mix run examples/digits.exs
#
# Once with the backend alone, one operation after another, and once compiled, where a
# step of the training is one program.
#
# The data and where it comes from: data/README.md

Code.require_file("perceptron.exs", __DIR__)

Nx.default_backend(Mlx.Backend)

defmodule Digits do
  @epochs 15

  @doc """
  Learns with `step`, and gives how well that went.
  """
  def train(name, step, train, {test_images, test_digits}) do
    started = System.monotonic_time(:millisecond)

    {weights, _momenta} =
      Perceptron.learn(Perceptron.init(42), step, train, @epochs, fn epoch, loss ->
        loss = Float.round(Nx.to_number(loss), 4)
        IO.write("\r#{name}: epoch #{epoch}/#{@epochs}, loss #{loss}    ")
      end)

    seconds = (System.monotonic_time(:millisecond) - started) / 1000
    scores = Perceptron.predict(weights, test_images)
    {name, seconds, Nx.to_number(Perceptron.accuracy(scores, test_digits))}
  end
end

{{images, digits} = train, {test_images, _} = test} = Perceptron.load()

IO.puts(
  "#{Nx.axis_size(images, 0)} images to learn from, #{Nx.axis_size(test_images, 0)} to test. Three of them:\n"
)

IO.inspect(images[0..2] |> Nx.reshape({3, 8, 8}) |> Nx.to_heatmap())
IO.puts("\nThe digits: #{inspect(Nx.to_list(digits[0..2]))}\n")

# The first step is compiled when it is called, which counts as well.
ways = [
  {"eager", Nx.Defn.jit(&Perceptron.step/3, compiler: Nx.Defn.Evaluator)},
  {"compiled", Nx.Defn.jit(&Perceptron.step/3, compiler: Mlx.Compiler)}
]

results = for {name, step} <- ways, do: Digits.train(name, step, train, test)

IO.puts(
  "\n\ndevice: #{Mlx.Device.default()}\n\n          seconds  images not seen before that are read"
)

for {name, seconds, accuracy} <- results do
  seconds = :erlang.float_to_binary(seconds, decimals: 2)
  IO.puts("#{String.pad_trailing(name, 8)}  #{seconds}     #{Float.round(accuracy * 100, 2)} %")
end
