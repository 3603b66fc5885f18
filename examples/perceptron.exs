defmodule Perceptron do
  @moduledoc """
  A network of two layers that learns to read the digits in data/.
  """

  import Nx.Defn

  @data Path.expand("../data/digits.csv.gz", __DIR__)
  @hidden 64
  @rate 0.1
  @momentum 0.9
  @batch_size 32

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
    still({first, zeros.({@hidden}), second, zeros.({10})})
  end

  @doc """
  Weights with momenta of zero.
  """
  def still(weights), do: {weights, zip(weights, weights, fn w, _ -> Nx.multiply(w, 0) end)}

  defn predict({w1, b1, w2, b2}, images) do
    images |> Nx.dot(w1) |> Nx.add(b1) |> Nx.max(0) |> Nx.dot(w2) |> Nx.add(b2)
  end

  @doc """
  The mean cross-entropy of scores.
  """
  defn cross_entropy(scores, digits) do
    scores = scores - stop_grad(Nx.reduce_max(scores, axes: [1], keep_axes: true))
    log_sum = scores |> Nx.exp() |> Nx.sum(axes: [1], keep_axes: true) |> Nx.log()
    target = Nx.equal(Nx.new_axis(digits, 1), Nx.iota({1, 10}))
    -Nx.sum((scores - log_sum) * target) / Nx.axis_size(scores, 0)
  end

  @doc """
  One step of gradient descent with momentum.
  """
  defn step(state, images, digits) do
    {weights, _momenta} = state

    {loss, gradient} =
      value_and_grad(weights, &cross_entropy(predict(&1, images), digits))

    {descend(state, gradient), loss}
  end

  @doc """
  The weights and momenta after a step against the gradient.
  """
  deftransform descend({weights, momenta}, gradient, rate \\ @rate) do
    momenta = zip(momenta, gradient, &Nx.add(Nx.multiply(&1, @momentum), &2))
    {zip(weights, momenta, &Nx.subtract(&1, Nx.multiply(&2, rate))), momenta}
  end

  defp zip(a, b, fun) do
    [Tuple.to_list(a), Tuple.to_list(b)]
    |> Enum.zip_with(fn [a, b] -> fun.(a, b) end)
    |> List.to_tuple()
  end

  @doc """
  What part of the images is read correctly.
  """
  defn accuracy(scores, digits), do: Nx.mean(Nx.equal(Nx.argmax(scores, axis: 1), digits))

  @doc """
  Learns for some epochs, each of which goes through the images in random order, and tells `report`
  the number of each and the loss of its last batch.
  """
  def learn(state, step, {images, digits}, epochs, report \\ fn _epoch, _loss -> :ok end) do
    # The same batches each time.
    :rand.seed(:exsss, 42)

    Enum.reduce(1..epochs, state, fn epoch, state ->
      order = 0..(Nx.axis_size(images, 0) - 1) |> Enum.shuffle() |> Nx.tensor()
      batches = &(&1 |> Nx.take(order) |> Nx.to_batched(@batch_size, leftover: :discard))

      {state, loss} =
        Enum.zip_reduce(batches.(images), batches.(digits), {state, nil}, fn
          images, digits, {state, _loss} -> step.(state, images, digits)
        end)

      report.(epoch, loss)
      state
    end)
  end
end
