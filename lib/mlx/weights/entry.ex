defmodule Mlx.Weights.Entry do
  @moduledoc false

  # A tensor in a file: where it is and what its bytes mean.

  alias Mlx.Downcast
  alias Mlx.Weights.{Blocks, Packed, Source}

  @enforce_keys [:name, :source, :offset, :length, :stored, :type, :shape]
  defstruct @enforce_keys ++ [swapped: 1, packed: nil, form: :plain]

  @type t :: %__MODULE__{
          name: String.t(),
          source: Source.t(),
          offset: non_neg_integer,
          length: non_neg_integer,
          # The format's own name of the type.
          stored: String.t(),
          # That of the tensor, unless there is none.
          type: Nx.Type.t() | nil,
          # As the file has it, of dimensions that may be zero.
          shape: [non_neg_integer],
          swapped: pos_integer,
          packed: map | nil,
          # `:reversed` has its axes in the other order, `{:blocks, kind}` is quantized in
          # blocks, `{:quantized, parts}` is packed and has other entries as parts.
          form: :plain | :reversed | {:blocks, atom} | {:quantized, map}
        }

  @doc """
  What users are told of it.
  """
  def info(%__MODULE__{} = entry) do
    {shape, type, quantization} = described(entry)

    %{
      shape: List.to_tuple(shape),
      type: type,
      stored: entry.stored,
      byte_size: byte_size_of(entry),
      quantization: quantization
    }
  end

  defp described(%{form: {:quantized, parts}, shape: shape}) do
    {leading, [packed]} = Enum.split(shape, -1)
    quantization = Map.take(parts, [:bits, :group_size, :mode])
    type = if parts.mode == :affine, do: parts.scales.type
    {leading ++ [div(packed * 32, parts.bits)], type, quantization}
  end

  defp described(%{form: {:blocks, kind}} = entry) do
    {entry.shape, {:f, 16}, Blocks.quantization(kind)}
  end

  defp described(entry), do: {entry.shape, entry.type, nil}

  @doc """
  The bytes of it and its parts.
  """
  def byte_size_of(%__MODULE__{form: {:quantized, parts}, length: length}) do
    length + parts.scales.length + if(parts.biases, do: parts.biases.length, else: 0)
  end

  def byte_size_of(%__MODULE__{length: length}), do: length

  @doc """
  Reads it to a device. A `type` that is not `nil` is that of floats.
  """
  def load(%__MODULE__{form: {:quantized, parts}} = entry, device, type) do
    packed = load(%{entry | form: :plain}, device, nil)
    scales = load(parts.scales, device, type)
    biases = parts.biases && load(parts.biases, device, type)
    Packed.tensor(packed, scales, biases, parts, type)
  end

  def load(%__MODULE__{form: {:blocks, kind}} = entry, device, type) do
    check_shape!(entry)
    check_matrix!(entry)
    Blocks.load(kind, entry, device, type || {:f, 16})
  end

  def load(%__MODULE__{form: :reversed} = entry, device, type) do
    reversed = %{entry | form: :plain, shape: Enum.reverse(entry.shape)}
    reversed |> load(device, type) |> Nx.transpose()
  end

  def load(%__MODULE__{form: :plain} = entry, device, type) do
    check_type!(entry)
    check_shape!(entry)
    template = Nx.template(List.to_tuple(entry.shape), entry.type)
    opts = [swapped: entry.swapped, packed: entry.packed]
    place = place(entry.type, device, type)

    entry.source
    |> Source.load(entry.offset, template, place, opts)
    |> cast(type)
    |> move(place, device)
  end

  # Where f64 is cast that the device lacks.
  defp place({:f, 64}, device, type) when type not in [nil, {:f, 64}],
    do: if(Downcast.lacking?(device), do: :cpu, else: device)

  defp place(_type, device, _cast), do: device

  defp move(tensor, device, device), do: tensor
  defp move(tensor, _, device), do: Nx.backend_transfer(tensor, {Mlx.Backend, device: device})

  defp check_type!(%{type: nil} = entry) do
    refuse!(entry, :type, "has type #{entry.stored}, which Mlx can't hold")
  end

  defp check_type!(_entry), do: :ok

  defp check_shape!(entry) do
    if 0 in entry.shape do
      shape = entry.shape |> List.to_tuple() |> inspect()
      refuse!(entry, :shape, "has shape #{shape}, and tensors of Nx have elements")
    end
  end

  defp check_matrix!(entry) do
    if length(entry.shape) < 2 do
      refuse!(entry, :shape, "is quantized and no matrix")
    end
  end

  defp refuse!(entry, kind, message) do
    raise Mlx.Error,
      kind: kind,
      message:
        "#{Source.shown(entry.source.path)}: tensor #{Source.shown(entry.name)} #{message}; " <>
          "the option :only leaves it out"
  end

  defp cast(tensor, type) do
    if type != nil and type != tensor.type and float?(tensor.type) do
      cast = Nx.as_type(tensor, type)
      # Else it would stay until the next garbage collection.
      Nx.backend_deallocate(tensor)
      cast
    else
      tensor
    end
  end

  @doc """
  Whether a type is one of real numbers.
  """
  def float?({kind, _}), do: kind in [:f, :bf, :f8_e4m3fn]
end
