defmodule Mlx.Quantization.Tensor do
  @moduledoc """
  A matrix in few bits, which stands where a weight stands.

  `Mlx.Quantization.quantize/2` and `Mlx.Quantization.from_parts/2` make it, and `Nx`'s
  functions take it for a tensor, see `Mlx.Quantization`. It is a container of its parts:
  `Nx.serialize/2`, `Nx.backend_transfer/2` and the like keep it as it is.

  ## Fields

    * `:packed` - a `u32` tensor `{..., rows, columns * bits / 32}`
    * `:scales` - a tensor `{..., rows, columns / group_size}`, of the tensor's type for
      `:affine` and of `u8` for the other modes
    * `:biases` - like `:scales` for `:affine`, else `nil`
    * `:mode`, `:bits`, `:group_size` - as given to `Mlx.Quantization.quantize/2`
    * `:type` - the type of the tensor that it stands for
    * `:transposed` - whether the last two axes are swapped in the tensor that it stands
      for, so that groups lie along the second to last axis

  """

  alias Mlx.Quantization.{Block, Composition}
  alias Nx.Tensor, as: T

  @formats for(
             bits <- [2, 3, 4, 5, 6, 8],
             size <- [32, 64, 128],
             do: {:affine, bits, size}
           ) ++ [{:mxfp4, 4, 32}, {:mxfp8, 8, 32}, {:nvfp4, 4, 16}]

  @types [{:f, 32}, {:f, 16}, {:bf, 16}]

  @enforce_keys [:packed, :scales, :mode, :bits, :group_size, :type]
  defstruct @enforce_keys ++ [biases: nil, transposed: false]

  @type t :: %__MODULE__{
          packed: T.t(),
          scales: T.t(),
          biases: T.t() | nil,
          mode: Mlx.Quantization.mode(),
          bits: pos_integer,
          group_size: pos_integer,
          type: Nx.Type.t(),
          transposed: boolean
        }

  @doc """
  The shape of the tensor that it stands for.

  ## Examples

      iex> weight = Mlx.Quantization.quantize(Nx.iota({8, 64}, type: :f32), bits: 4)
      iex> Mlx.Quantization.Tensor.shape(weight)
      {8, 64}

  """
  @spec shape(t) :: tuple
  def shape(%__MODULE__{packed: packed, bits: bits, transposed: transposed}) do
    {leading, [rows, words]} = packed.shape |> Tuple.to_list() |> Enum.split(-2)
    columns = div(words * 32, bits)
    List.to_tuple(leading ++ if(transposed, do: [columns, rows], else: [rows, columns]))
  end

  @doc false
  def formats, do: @formats

  @doc false
  def types, do: @types

  @doc false
  def parts(%__MODULE__{biases: nil} = tensor), do: [tensor.packed, tensor.scales]
  def parts(%__MODULE__{} = tensor), do: [tensor.packed, tensor.scales, tensor.biases]

  @doc false
  def put_parts(tensor, [packed, scales | biases]) do
    %{tensor | packed: packed, scales: scales, biases: List.first(biases)}
  end

  @doc false
  # The tensor that it stands for, which an operation unpacks if it has to.
  def to_nx(%__MODULE__{} = tensor) do
    block =
      struct!(Block.Dequantize, Map.take(tensor, [:mode, :bits, :group_size, :type, :transposed]))

    out = Nx.template(shape(tensor), tensor.type)
    # Numbers in the composition are to go with tensors of any backend.
    Nx.with_default_backend(Nx.BinaryBackend, fn ->
      Nx.block(block, parts(tensor), out, composition(tensor))
    end)
  end

  defp composition(%{biases: nil}), do: &Composition.dequantize/3
  defp composition(_tensor), do: &Composition.dequantize/4

  @doc false
  # Templates of the parts have a name that says what they mean: `Nx.Defn.compile/3` compares
  # no more than templates.
  def template(%__MODULE__{} = tensor, %T{names: names} = part) do
    %{mode: mode, bits: bits, group_size: size, type: type, transposed: transposed} = tensor
    names = List.replace_at(names, -1, name(mode, bits, size, type, transposed))
    %{Nx.to_template(part) | names: names}
  end

  # Each call of a compiled function asks for the names of all parts of all weights.
  for {mode, bits, size} <- @formats,
      type <- @types,
      transposed <- [false, true] do
    form = "#{mode}_#{bits}_#{size}_#{Nx.Type.to_string(type)}"
    name = if transposed, do: :"#{form}_transposed", else: :"#{form}"

    defp name(
           unquote(mode),
           unquote(bits),
           unquote(size),
           unquote(Macro.escape(type)),
           unquote(transposed)
         ),
         do: unquote(name)
  end
end

defimpl Nx.LazyContainer, for: Mlx.Quantization.Tensor do
  alias Mlx.Quantization.Tensor
  alias Nx.Tensor, as: T

  # What `fun` gives are the tensors of the parts, or whatever else the caller is after.
  def traverse(tensor, acc, fun) do
    {parts, acc} =
      tensor
      |> Tensor.parts()
      |> Enum.map_reduce(acc, fn part, acc ->
        {given, acc} = fun.(Tensor.template(tensor, part), fn -> part end, acc)
        {unnamed(given), acc}
      end)

    tensor = Tensor.put_parts(tensor, parts)
    {if(Enum.all?(parts, &value?/1), do: Tensor.to_nx(tensor), else: tensor), acc}
  end

  defp unnamed(%T{names: names} = part), do: %{part | names: Enum.map(names, fn _ -> nil end)}
  defp unnamed(other), do: other

  defp value?(%T{data: %Nx.TemplateBackend{}}), do: false
  defp value?(part), do: is_struct(part, T)
end

defimpl Nx.Container, for: Mlx.Quantization.Tensor do
  alias Mlx.Quantization.Tensor

  def traverse(tensor, acc, fun) do
    {parts, acc} = tensor |> Tensor.parts() |> Enum.map_reduce(acc, fun)
    {Tensor.put_parts(tensor, parts), acc}
  end

  def reduce(tensor, acc, fun), do: tensor |> Tensor.parts() |> Enum.reduce(acc, fun)

  def serialize(tensor) do
    pairs =
      for {name, %Nx.Tensor{} = part} <-
            Map.take(tensor, [:packed, :scales, :biases]) |> Map.to_list(),
          do: {name, part}

    {__MODULE__, pairs, Map.take(tensor, [:mode, :bits, :group_size, :type, :transposed])}
  end

  def deserialize(parts, form), do: struct!(Tensor, Map.merge(form, Map.new(parts)))
end

defimpl Inspect, for: Mlx.Quantization.Tensor do
  import Inspect.Algebra

  alias Mlx.Quantization.Tensor

  def inspect(tensor, opts) do
    shape = for size <- Tuple.to_list(Tensor.shape(tensor)), do: "[#{size}]"
    form = "#{tensor.mode}, #{tensor.bits} bits, groups of #{tensor.group_size}"
    parts = tensor |> Tensor.parts() |> Enum.map(&to_doc(&1, opts))
    head = "#{Nx.Type.to_string(tensor.type)}#{shape} (#{form})"
    inside = [head | parts] |> Enum.intersperse(line()) |> concat()

    force_unfit(
      concat(["#Mlx.Quantization.Tensor<", nest(concat(line(), inside), 2), line(), ">"])
    )
  end
end
