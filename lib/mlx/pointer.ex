defmodule Mlx.Pointer do
  @moduledoc false

  # Tensors as memory that other code reaches, and tensors of such memory.

  alias Mlx.{Backend, Dispatch, Native}
  alias Nx.Tensor, as: T

  @doc """
  A pointer to the values of a tensor.
  """
  def to_pointer(%T{data: %Backend{deferred: {_node, _refs}}}, _opts) do
    raise Mlx.Error,
      kind: :unsupported,
      op: "to_pointer",
      message: "a quantized tensor has no values in memory: use Mlx.Quantization.dequantize/1"
  end

  def to_pointer(%T{} = tensor, opts) do
    opts = Keyword.validate!(opts, mode: :local, permissions: 0o400)
    permissions = permissions!(opts[:permissions])

    case opts[:mode] do
      :local -> local(tensor)
      :ipc -> ipc(tensor, permissions)
      mode -> raise ArgumentError, ":mode is :local or :ipc, got: #{inspect(mode)}"
    end
  end

  defp permissions!(mode) when is_integer(mode) and mode in 0..0o7777, do: mode

  defp permissions!(other) do
    raise ArgumentError, ":permissions is an integer in 0..0o7777, got: #{inspect(other)}"
  end

  defp local(%T{data: %Backend{ref: ref}} = tensor) do
    if Dispatch.encoded(tensor) != ref do
      raise Mlx.Error,
        kind: :unsupported,
        op: "to_pointer",
        message:
          "the values of #{Nx.Type.to_string(tensor.type)} lie in memory as another type: " <>
            "use mode: :ipc, which copies, or Nx.to_binary/2"
    end

    {address, size} = Dispatch.await(&Native.pointer_to_local(ref, &1))
    %Nx.Pointer{kind: :local, address: address, data_size: size}
  end

  defp ipc(%T{data: %Backend{ref: ref}} = tensor, permissions) do
    values = Dispatch.encoded(tensor)
    {name, size} = Dispatch.await(&Native.pointer_to_ipc(ref, values, permissions, &1))
    %Nx.Pointer{kind: :ipc, handle: name, data_size: size}
  end

  @doc """
  A tensor of a copy of what a pointer points to.
  """
  def from_pointer(%Nx.Pointer{} = pointer, type, shape, device, opts) do
    opts = Keyword.validate!(opts, [:names])
    out = Nx.template(shape, type, names: opts[:names])
    {_, bits} = type
    size = div(Tuple.product(shape) * bits + 7, 8)
    check_size!(pointer.data_size, size, out)
    copy = copy(pointer, size, type)

    Dispatch.from_bytes(out, device, fn device, dims, type ->
      target = Mlx.Stream.target(device)
      Dispatch.await(&copy.(target, dims, type, &1))
    end)
  end

  def from_pointer(other, _type, _shape, _device, _opts) do
    raise ArgumentError, "expected a %Nx.Pointer{}, got: #{inspect(other)}"
  end

  defp check_size!(given, expected, _out) when given in [nil, expected], do: :ok

  defp check_size!(given, expected, out) do
    raise Mlx.Error,
      kind: :shape,
      op: "from_pointer",
      message:
        "a tensor of #{Nx.Type.to_string(out.type)}#{inspect(out.shape)} has #{expected} " <>
          "bytes, the pointer's :data_size is #{inspect(given)}"
  end

  defp copy(%{kind: :local, address: address}, size, type) do
    source = {address!(address, alignment(type)), size}
    &Native.pointer_from_local(&1, source, &2, &3, &4)
  end

  defp copy(%{kind: :ipc, handle: handle}, size, _type) when is_binary(handle) do
    &Native.pointer_from_ipc(&1, {handle, size}, &2, &3, &4)
  end

  defp copy(pointer, _size, _type) do
    raise ArgumentError,
          "a pointer is of kind :local with an address or :ipc with a handle, " <>
            "got: #{inspect(pointer)}"
  end

  defp address!(address, alignment)
       when is_integer(address) and address in 1..0xFFFF_FFFF_FFFF_FFFF and
              rem(address, alignment) == 0,
       do: address

  defp address!(address, alignment) do
    raise ArgumentError,
          "an address is a positive multiple of the type's alignment, #{alignment}, " <>
            "got: #{inspect(address)}"
  end

  defp alignment({:c, bits}), do: div(bits, 16)
  defp alignment({_, bits}), do: max(div(bits, 8), 1)
end
