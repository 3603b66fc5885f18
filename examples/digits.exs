# Trains a two-layer perceptron on images of handwritten digits:
#
#     mix run examples/digits.exs
#
# Once with the backend alone, one operation after another, and once compiled, where a
# step of the training is one program.
#
# The data and where it comes from: data/README.md

Nx.default_backend(Mlx.Backend)

defmodule Digits do
  import Nx.Defn

  @data Path.expand("../data/digits.csv.gz", __DIR__)
  @hidden 64
  @rate 0.1
  @momentum 0.9
  @batch_size 32
  @epochs 15

  @doc """
  Images as rows of 64 values from 0 to 1, and the digits. Every fifth is held out.
  """
  def load do
    rows =
      for line <- @data |> File.read!() |> :zlib.gunzip() |> String.split("\n", trim: true) do
        line |> String.split(",") |> Enum.map(&String.to_integer/1)
      end

    {test, train} = rows |> Enum.with_index() |> Enum.split_with(fn {_, i} -> rem(i, 5) == 0 end)
    {tensors(train), tensors(test)}
  end

  defp tensors(rows) do
    {images, digits} = rows |> Enum.map(fn {row, _} -> Enum.split(row, 64) end) |> Enum.unzip()
    {images |> Nx.tensor(type: :f32) |> Nx.divide(16), digits |> List.flatten() |> Nx.tensor()}
  end

  @doc """
  Random weights, small enough for the first layer not to saturate, and their momenta.
  """
  def init(seed) do
    key = Nx.Random.key(seed)
    {first, key} = Nx.Random.normal(key, 0.0, :math.sqrt(2 / 64), shape: {64, @hidden})
    {second, _key} = Nx.Random.normal(key, 0.0, :math.sqrt(2 / @hidden), shape: {@hidden, 10})
    zeros = &Nx.broadcast(Nx.tensor(0.0), &1)
    weights = {first, zeros.({@hidden}), second, zeros.({10})}
    {weights, {zeros.({64, @hidden}), zeros.({@hidden}), zeros.({@hidden, 10}), zeros.({10})}}
  end

  defn predict({w1, b1, w2, b2}, images) do
    images |> Nx.dot(w1) |> Nx.add(b1) |> Nx.max(0) |> Nx.dot(w2) |> Nx.add(b2)
  end

  @doc """
  The mean cross-entropy of the predictions.
  """
  defn loss(weights, images, digits) do
    scores = predict(weights, images)
    scores = scores - stop_grad(Nx.reduce_max(scores, axes: [1], keep_axes: true))
    log_sum = scores |> Nx.exp() |> Nx.sum(axes: [1], keep_axes: true) |> Nx.log()
    target = Nx.equal(Nx.new_axis(digits, 1), Nx.iota({1, 10}))
    -Nx.sum((scores - log_sum) * target) / Nx.axis_size(images, 0)
  end

  @doc """
  One step of gradient descent with momentum.
  """
  defn step({weights, momenta}, images, digits) do
    {loss, gradient} = value_and_grad(weights, &loss(&1, images, digits))
    momenta = add(momenta, gradient, @momentum, 1.0)
    {{add(weights, momenta, 1.0, -@rate), momenta}, loss}
  end

  defnp add({a1, a2, a3, a4}, {b1, b2, b3, b4}, a, b) do
    {a1 * a + b1 * b, a2 * a + b2 * b, a3 * a + b3 * b, a4 * a + b4 * b}
  end

  defn accuracy(weights, images, digits) do
    Nx.mean(Nx.equal(Nx.argmax(predict(weights, images), axis: 1), digits))
  end

  @doc """
  Learns with `step`, and gives how well that went.
  """
  def train(name, step, train, {test_images, test_digits}) do
    # The same weights and batches each time.
    :rand.seed(:exsss, 42)
    started = System.monotonic_time(:millisecond)

    {weights, _momenta} =
      Enum.reduce(1..@epochs, init(42), fn epoch, state ->
        {state, loss} = epoch(step, state, train)
        loss = Float.round(Nx.to_number(loss), 4)
        IO.write("\r#{name}: epoch #{epoch}/#{@epochs}, loss #{loss}    ")
        state
      end)

    seconds = (System.monotonic_time(:millisecond) - started) / 1000
    {name, seconds, Nx.to_number(accuracy(weights, test_images, test_digits))}
  end

  # One pass over the images in random order. The loss is that of the last batch.
  defp epoch(step, state, {images, digits}) do
    order = 0..(Nx.axis_size(images, 0) - 1) |> Enum.shuffle() |> Nx.tensor()
    batches = &(&1 |> Nx.take(order) |> Nx.to_batched(@batch_size, leftover: :discard))

    Enum.zip_reduce(batches.(images), batches.(digits), {state, nil}, fn
      images, digits, {state, _loss} -> step.(state, images, digits)
    end)
  end
end

{{images, digits} = train, {test_images, _} = test} = Digits.load()

IO.puts(
  "#{Nx.axis_size(images, 0)} images to learn from, #{Nx.axis_size(test_images, 0)} to test. Three of them:\n"
)

IO.inspect(images[0..2] |> Nx.reshape({3, 8, 8}) |> Nx.to_heatmap())
IO.puts("\nThe digits: #{inspect(Nx.to_list(digits[0..2]))}\n")

# The first step is compiled when it is called, which counts as well.
ways = [
  {"eager", Nx.Defn.jit(&Digits.step/3, compiler: Nx.Defn.Evaluator)},
  {"compiled", Nx.Defn.jit(&Digits.step/3, compiler: Mlx.Compiler)}
]

results = for {name, step} <- ways, do: Digits.train(name, step, train, test)

IO.puts(
  "\n\ndevice: #{Mlx.Device.default()}\n\n          seconds  images not seen before that are read"
)

for {name, seconds, accuracy} <- results do
  seconds = :erlang.float_to_binary(seconds, decimals: 2)
  IO.puts("#{String.pad_trailing(name, 8)}  #{seconds}     #{Float.round(accuracy * 100, 2)} %")
end
