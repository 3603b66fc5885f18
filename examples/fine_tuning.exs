# Teaches a network that reads digits to read them mirrored, in three ways:
#
#     mix run examples/fine_tuning.exs
#
# A new last layer on what the first one makes of an image; adapters of rank 4 beside layers
# whose weights stay in 4 bits; and all weights, computed in f16. The adapters are saved and
# loaded again.

Code.require_file("perceptron.exs", __DIR__)

Nx.default_backend(Mlx.Backend)

defmodule Tuning do
  import Nx.Defn
  alias Mlx.MixedPrecision

  @rank 4
  @rate 0.03

  @doc """
  Images mirrored along their diagonal.
  """
  def mirrored({images, digits}) do
    mirrored = images |> Nx.reshape({:auto, 8, 8}) |> Nx.transpose(axes: [0, 2, 1])
    {Nx.reshape(mirrored, {:auto, 64}), digits}
  end

  @doc """
  Learns `parameters`, of which, with what is frozen and the images, `predict` makes scores.
  """
  def learn(parameters, frozen, predict, train, epochs) do
    # What is frozen is an argument: compiled functions hold no tensors.
    step =
      compiled(fn state, frozen, images, digits ->
        {loss, gradient} =
          Nx.Defn.value_and_grad(elem(state, 0), fn parameters ->
            Perceptron.cross_entropy(predict.(parameters, frozen, images), digits)
          end)

        {Perceptron.descend(state, gradient, @rate), loss}
      end)

    {parameters, _momenta} =
      parameters
      |> Perceptron.still()
      |> Perceptron.learn(&step.(&1, frozen, &2, &3), train, epochs)

    parameters
  end

  defp compiled(step), do: Nx.Defn.jit(step, compiler: Mlx.Compiler)

  ## A new last layer

  defn features({w1, b1, _, _}, images), do: images |> Nx.dot(w1) |> Nx.add(b1) |> Nx.max(0)
  defn head({w2, b2}, _frozen, features), do: features |> Nx.dot(w2) |> Nx.add(b2)

  ## Adapters

  @doc """
  Two matrices for each layer, of which the second begins with zeros.
  """
  def adapters(key) do
    {down1, key} = Nx.Random.normal(key, 0.0, 0.1, shape: {64, @rank})
    {down2, _key} = Nx.Random.normal(key, 0.0, 0.1, shape: {64, @rank})
    {down1, Nx.broadcast(0.0, {@rank, 64}), down2, Nx.broadcast(0.0, {@rank, 10})}
  end

  @doc """
  The scores of a network with adapters. The network may be packed, and is not unpacked for gradients either.
  """
  defn adapted({down1, up1, down2, up2}, {w1, b1, w2, b2}, images) do
    hidden = Nx.dot(images, w1) + b1 + Nx.dot(Nx.dot(images, down1), up1)
    hidden = Nx.max(hidden, 0)
    Nx.dot(hidden, w2) + b2 + Nx.dot(Nx.dot(hidden, down2), up2)
  end

  def pack({w1, b1, w2, b2}) do
    [w1, w2] = for w <- [w1, w2], do: Mlx.Quantization.quantize(w, bits: 4, axis: 0)
    {w1, b1, w2, b2}
  end

  ## All weights, in halves

  @doc """
  A step whose state has the scale of the loss, too. Where gradients overflow, the weights stay.
  """
  def half_step({state, scale}, images, digits) do
    loss = fn weights ->
      scores = Perceptron.predict(weights, MixedPrecision.cast(images, :f16))
      Perceptron.cross_entropy(MixedPrecision.cast(scores, :f32), digits)
    end

    {loss, gradient, scale} =
      MixedPrecision.value_and_grad(elem(state, 0), scale, loss, type: :f16)

    {{MixedPrecision.accept(scale, Perceptron.descend(state, gradient, @rate), state), scale},
     loss}
  end

  def learn_in_halves(weights, train, epochs) do
    state = {Perceptron.still(weights), MixedPrecision.scale()}
    step = compiled(&half_step/3)
    {{weights, _momenta}, _scale} = Perceptron.learn(state, step, train, epochs)
    weights
  end

  ## What it gives

  def print(way, parameters, scores, digits) do
    count = parameters |> Tuple.to_list() |> Enum.map(&Nx.size/1) |> Enum.sum()
    right = Float.round(Nx.to_number(Perceptron.accuracy(scores, digits)) * 100, 1)

    IO.puts(
      "#{String.pad_trailing(way, 34)} #{String.pad_leading("#{count}", 7)}  #{String.pad_leading("#{right}", 14)} %"
    )
  end
end

{train, test} = Perceptron.load()
step = Nx.Defn.jit(&Perceptron.step/3, compiler: Mlx.Compiler)
{network, _momenta} = Perceptron.learn(Perceptron.init(42), step, train, 15)

{mirrored, {images, digits}} = {Tuning.mirrored(train), Tuning.mirrored(test)}
epochs = 20

IO.puts("                                   learns   read correctly")
Tuning.print("the network as it was", {}, Perceptron.predict(network, images), digits)

features = &Tuning.features(network, &1)
train_features = {features.(elem(mirrored, 0)), elem(mirrored, 1)}
{_w1, _b1, w2, b2} = network
head = Tuning.learn({w2, b2}, {}, &Tuning.head/3, train_features, epochs)
Tuning.print("a new last layer", head, Tuning.head(head, {}, features.(images)), digits)

packed = Tuning.pack(network)
fresh = Tuning.adapters(Nx.Random.key(1))
adapters = Tuning.learn(fresh, packed, &Tuning.adapted/3, mirrored, epochs)
scores = Tuning.adapted(adapters, packed, images)
Tuning.print("adapters, on weights in 4 bits", adapters, scores, digits)

all = Tuning.learn_in_halves(network, mirrored, epochs)
Tuning.print("all weights, in f16", all, Perceptron.predict(all, images), digits)

path = Path.join(System.tmp_dir!(), "adapters_#{System.pid()}.safetensors")
names = ["first.down", "first.up", "second.down", "second.up"]
Mlx.Weights.save(path, Map.new(Enum.zip(names, Tuple.to_list(adapters))))
saved = Mlx.Weights.load(path)
again = names |> Enum.map(&saved[&1]) |> List.to_tuple()
same? = Nx.to_binary(Tuning.adapted(again, packed, images)) == Nx.to_binary(scores)
IO.puts("\nadapters saved: #{File.stat!(path).size} bytes, the same again: #{same?}")
File.rm!(path)
